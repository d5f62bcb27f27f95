"""States that were damaged, mixed up or written by others: noticed, told, and never gone on from."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stillroom.errors import DiskFull, TrainingFailed
from stillroom.student.bases.checkpoint import step_folders, write_folder
from stillroom.student.training.muon import Muon
from stillroom.student.training.packing import Passes
from stillroom.student.training.resume import FORMAT, Progress, load_resume_state, save_resume_state

FINGERPRINT = "the run's"
PASSES = Passes(max_tokens=512, recomputed=True)
TENSORS, MANIFEST = "state.safetensors", "manifest.json"


class Training:
    """A tiny run: a few matrices, both optimizers, dropout that draws from the generator, a method that keeps a number."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        vectors = [each for each in self.model.parameters() if each.ndim < 2]
        matrices = [each for each in self.model.parameters() if each.ndim == 2]
        self.optimizers: list[Optimizer] = [AdamW(vectors, lr=0.1, fused=True), Muon(matrices, lr=0.1, weight_decay=0)]
        self.kept = {"steps_1": torch.zeros(1)}
        self.step = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.model(torch.ones(3, 4)).square().sum().backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self.kept["steps_1"] = torch.tensor([float(self.step)])

    def save(self, folder: Path, *, fingerprint: str = FINGERPRINT) -> None:
        metrics = {"train_loss": 1 / (self.step + 1), "valid_loss": None}
        progress = Progress(step=self.step, fingerprint=fingerprint, metrics=metrics, passes=PASSES)
        save_resume_state(folder, self.model, self.optimizers, progress, kept=self.kept)

    def load(self, folder: Path) -> tuple[int | None, list[str]]:
        """The step it goes on from, and what was said."""
        told: list[str] = []
        found = load_resume_state(
            folder, self.model, self.optimizers, kept=self.kept, fingerprint=FINGERPRINT, warn=told.append
        )
        self.step = found.step if found else 0
        return (found.step if found else None), told

    def everything(self) -> list[Tensor]:
        optimizers = [
            value
            for optimizer in self.optimizers
            for state in optimizer.state_dict()["state"].values()
            for _, value in sorted(state.items())
        ]
        tensors = [*self.model.parameters(), *optimizers, self.kept["steps_1"], torch.get_rng_state()]
        return [each.detach().clone() for each in tensors]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[Tensor]]]:
    """The states after steps 4 and 8 and what the run was there. It is copied, never changed."""
    folder = tmp_path_factory.mktemp("kept") / "resume"
    training, was = Training(), {0: Training().everything()}
    for _ in range(2):
        training.train(4)
        training.save(folder)
        was[training.step] = training.everything()
    return folder, was


# --- the damage ----------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def zero(path: Path, rng: random.Random) -> None:
    """As a power cut leaves what was never forced to the disk."""
    data = path.read_bytes()
    begin = rng.randrange(len(data))
    path.write_bytes(data[:begin] + bytes(len(data) - begin))
    if path.read_bytes() == data:
        path.write_bytes(bytes(len(data)))


def lengthen(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def reorder(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    middle = len(data) // 2 + rng.randrange(-8, 8)
    path.write_bytes(data[middle:] + data[:middle])


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def make_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def take_from_other_state(path: Path, rng: random.Random) -> None:
    other = path.parents[1] / "step-000004" / path.name
    shutil.copyfile(other, path)


def change_one_value(path: Path, rng: random.Random) -> None:
    """A weight of the tensors, or a field of the manifest: well-formed all the same."""
    if path.name == TENSORS:
        data = bytearray(path.read_bytes())
        data[-rng.randrange(1, 64)] ^= 0xFF
        path.write_bytes(data)
        return
    content = json.loads(path.read_text())
    field = rng.choice(["step", "fingerprint", "metrics", "format", "seal", "sha256"])
    content[field] = {"step": 4, "fingerprint": "another's", "format": FORMAT + 1}.get(field, {})
    path.write_text(json.dumps(content, indent=1) + "\n")


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    flip,
    truncate,
    zero,
    lengthen,
    reorder,
    remove,
    empty,
    make_folder,
    take_from_other_state,
    change_one_value,
]
CASES = 300
"""Every damage to each of the two files, with 15 seeds."""


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_damaged_state_is_noticed_told_and_the_one_before_it_is_used(
    damage: Callable[[Path, random.Random], None], tmp_path: Path, kept: tuple[Path, dict[int, list[Tensor]]]
) -> None:
    original, was = kept
    training = Training()
    for case in range(CASES // len(DAMAGES)):
        folder = shutil.copytree(original, tmp_path / str(case))
        # The control: undamaged, the newest is used and nothing is said.
        assert training.load(folder) == (8, [])
        assert same(training.everything(), was[8])

        file = folder / "step-000008" / (TENSORS, MANIFEST)[case % 2]
        damage(file, random.Random(case))
        step, told = training.load(folder)
        assert step == 4, (case, file)
        assert same(training.everything(), was[4])
        assert len(told) == 1
        assert told[0].startswith("The saved state step-000008 is damaged: ")
        # It does not count as one of those kept any more, and is not told of again.
        assert [state.name for state in step_folders(folder)] == ["step-000004"]
        assert training.load(folder) == (4, [])


def test_there_are_300_cases_and_each_damages_its_file(kept: tuple[Path, dict[int, list[Tensor]]]) -> None:
    """The control of the damages: each leaves another folder than was written."""
    original, _ = kept
    seen = 0
    for damage in DAMAGES:
        for case in range(CASES // len(DAMAGES)):
            file = original.parent / "step-000008" / (TENSORS, MANIFEST)[case % 2]
            shutil.rmtree(file.parent, ignore_errors=True)
            shutil.copytree(original / "step-000008", file.parent)
            shutil.copytree(original / "step-000004", original.parent / "step-000004", dirs_exist_ok=True)
            before = file.read_bytes()
            damage(file, random.Random(case))
            assert not file.is_file() or file.read_bytes() != before, (damage, case)
            seen += 1
    assert seen == CASES == 300


def swap_names(folder: Path) -> None:
    (folder / "step-000008").rename(folder / "other")
    (folder / "step-000004").rename(folder / "step-000008")
    (folder / "other").rename(folder / "step-000004")


def rename_to_a_later_step(folder: Path) -> None:
    (folder / "step-000004").rename(folder / "step-001000")


def copy_to_a_later_step(folder: Path) -> None:
    shutil.copytree(folder / "step-000004", folder / "step-000012")


def replace_by_the_one_before(folder: Path) -> None:
    shutil.rmtree(folder / "step-000008")
    shutil.copytree(folder / "step-000004", folder / "step-000008")


def add_an_empty_folder(folder: Path) -> None:
    (folder / "step-000012").mkdir()


def add_a_file(folder: Path) -> None:
    (folder / "step-000012").write_text("no folder")


@pytest.mark.parametrize(
    ("mix_up", "used", "unusable"),
    [
        (swap_names, None, ["step-000008", "step-000004"]),
        (rename_to_a_later_step, 8, ["step-001000"]),
        (copy_to_a_later_step, 8, ["step-000012"]),
        (replace_by_the_one_before, 4, ["step-000008"]),
        (add_an_empty_folder, 8, ["step-000012"]),
        (add_a_file, 8, ["step-000012"]),
    ],
)
def test_a_folder_under_another_name_is_no_state(
    mix_up: Callable[[Path], None],
    used: int | None,
    unusable: list[str],
    tmp_path: Path,
    kept: tuple[Path, dict[int, list[Tensor]]],
) -> None:
    original, was = kept
    folder = shutil.copytree(original, tmp_path / "resume")
    mix_up(folder)
    training = Training()
    step, told = training.load(folder)
    assert step == used
    assert same(training.everything(), was[used or 0])
    assert [message.split()[3] for message in told if message.startswith("The saved state")] == unusable


def test_with_every_state_damaged_the_run_begins_anew_and_says_so(
    tmp_path: Path, kept: tuple[Path, dict[int, list[Tensor]]]
) -> None:
    original, was = kept
    folder = shutil.copytree(original, tmp_path / "resume")
    for state in step_folders(folder):
        flip(state / TENSORS, random.Random(1))
    training = Training()
    step, told = training.load(folder)
    assert step is None
    assert same(training.everything(), was[0])
    assert len(told) == 3
    assert "begins anew" in told[-1]
    # The control: a run that has no state yet begins without a word.
    assert training.load(tmp_path / "none") == (None, [])


def test_what_was_set_aside_is_kept_but_never_counted(
    tmp_path: Path, kept: tuple[Path, dict[int, list[Tensor]]]
) -> None:
    folder = shutil.copytree(kept[0], tmp_path / "resume")
    flip(folder / "step-000008" / TENSORS, random.Random(1))
    training = Training()
    assert training.load(folder)[0] == 4
    training.train(2)
    training.save(folder)
    # Had the damaged one counted, the only good state before the newest were gone now.
    assert [state.name for state in step_folders(folder)] == ["step-000004", "step-000006"]
    assert (folder / "unusable-step-000008").is_dir()


def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Path, kept: tuple[Path, dict[int, list[Tensor]]]) -> None:
    """Dropout included, so that the generator's state counts."""
    undisturbed, resumed = Training(), Training()
    undisturbed.train(12)
    expected = undisturbed.everything()
    assert resumed.load(shutil.copytree(kept[0], tmp_path / "resume"))[0] == 8
    resumed.train(4)
    assert same(resumed.everything(), expected)
    # The control: with the generator elsewhere the weights differ.
    assert resumed.load(tmp_path / "resume")[0] == 8
    torch.manual_seed(0)
    resumed.train(4)
    assert not same(resumed.everything(), expected)


def test_the_two_newest_states_are_kept_in_the_order_of_their_steps(tmp_path: Path) -> None:
    training = Training()
    for step in (999_998, 999_999, 1_000_000):
        training.step = step
        training.save(tmp_path)
    assert [state.name for state in step_folders(tmp_path)] == ["step-999999", "step-1000000"]
    assert training.load(tmp_path) == (1_000_000, [])


def test_another_runs_state_is_refused_and_stays(tmp_path: Path) -> None:
    training = Training()
    training.save(tmp_path, fingerprint="another's")
    with pytest.raises(TrainingFailed, match="folder of its own"):
        training.load(tmp_path)
    assert len(step_folders(tmp_path)) == 1


def test_a_state_of_another_version_is_named_as_such_and_the_run_begins_anew(tmp_path: Path) -> None:
    training = Training()
    training.save(tmp_path)
    manifest = tmp_path / "step-000000" / MANIFEST
    manifest.write_text(json.dumps({"format": 1, "sha256": {TENSORS: "", "state.json": ""}}))
    step, told = training.load(tmp_path)
    assert step is None
    assert "was written by another version of stillroom (format 1" in told[0]
    assert (tmp_path / "unusable-step-000000").is_dir()


def test_a_state_that_does_not_fit_the_model_is_not_half_loaded(tmp_path: Path) -> None:
    training, other = Training(), Training()
    training.train(1)
    training.save(tmp_path)
    other.model[2] = nn.Linear(8, 3)
    before = [each.detach().clone() for each in other.model.parameters()]
    step, told = other.load(tmp_path)
    assert step is None
    assert "does not fit the model: model.2.weight is [2, 8] there and [3, 8] here" in told[0]
    assert same(before, [each.detach() for each in other.model.parameters()])


def test_leftovers_of_a_process_that_was_killed_while_writing_go(tmp_path: Path) -> None:
    training = Training()
    training.save(tmp_path)
    (tmp_path / f".step-000004.{'0' * 16}").mkdir()
    assert training.load(tmp_path) == (0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000"]


def test_two_processes_that_write_one_folder_both_succeed(tmp_path: Path) -> None:
    """One of them was taken for dead: whole folders replace each other, whoever comes second."""
    folder = tmp_path / "step-000004"

    def write(name: str, then: Callable[[], None] = lambda: None) -> None:
        def fill(to: Path) -> None:
            (to / "name").write_text(name)
            then()

        write_folder(folder, fill)

    write("one", then=lambda: write("two"))
    assert (folder / "name").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("room", [0, 4096, 8192])
def test_a_full_disk_is_told_takes_no_room_and_costs_no_state(small_disk: Path, room: int) -> None:
    training = Training()
    training.train(4)
    training.save(small_disk / "resume")  # the control: there is room
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - room)
    training.train(4)
    with pytest.raises(DiskFull, match="step-000008 was not written"):
        training.save(small_disk / "resume")
    assert [path.name for path in (small_disk / "resume").iterdir()] == ["step-000004"]
    assert training.load(small_disk / "resume") == (4, [])
    filler.unlink()
    training.train(4)
    training.save(small_disk / "resume")
    assert training.load(small_disk / "resume") == (8, [])


def test_a_field_more_in_progress_needs_a_new_format() -> None:
    """Whoever adds one finds the sentence that says so here: a state of the old format would lack it."""
    known = {3: {"step", "fingerprint", "metrics", "passes", "max_tokens", "recomputed", "shares"}}
    assert {field.name for field in (*fields(Progress), *fields(Passes))} == known[FORMAT]
