"""What "auto" is told to be, and why: by counts and a base's manifest alone, for whoever has no torch at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import BaseModelUnusable, InvalidRequest
from stillroom.student.hyperparameters import (
    AUTO_BATCH_SIZE_AT_MOST,
    AUTO_BATCH_SIZES,
    BUILT_IN,
    Hyperparameters,
    LongRows,
    Lora,
    Method,
    Origin,
    Resolved,
    Training,
    method_of,
    reasons,
    resolve,
    without_effect,
)
from stillroom.student.manifest import MANIFEST, origin_of

ASKED = st.one_of(st.just("auto"), st.integers(1, 50))
BASE = Origin()
ADAPTER = Origin(training=Training.ADAPTER, lora=Lora(rank=8, alpha=8, targets=("q_proj", "v_proj")))
WHOLE = Origin(training=Training.FULL)
ORIGINS = {"built in": BUILT_IN, "base": BASE, "adapter": ADAPTER, "whole": WHOLE}


def numbers_of(wanted: Hyperparameters, count: int, origin: Origin) -> tuple[Resolved, Method]:
    method = method_of(wanted, origin)
    return resolve(wanted, num_examples=count, method=method), method


def told(wanted: Hyperparameters, count: int, origin: Origin) -> dict[str, str]:
    numbers, method = numbers_of(wanted, count, origin)
    return reasons(wanted, numbers, num_examples=count, method=method)


# --- what "auto" becomes, and why -----------------------------------------------------------------------


@given(st.integers(1, 100_000), st.sampled_from(list(ORIGINS.values())), ASKED, ASKED)
def test_each_reason_is_one_sentence_and_those_of_numbers_name_them(
    count: int, origin: Origin, epochs: int, batch: int
) -> None:
    wanted = Hyperparameters(n_epochs=epochs, batch_size=batch)
    numbers, _ = numbers_of(wanted, count, origin)
    why = told(wanted, count, origin)
    assert list(why) == list(numbers.shown())
    assert all(re.fullmatch(r"[^.]+(\d\.\d[^.]*)*\.", sentence) for sentence in why.values())
    if epochs == "auto":  # type: ignore[comparison-overlap]
        assert re.match(rf"{numbers.n_epochs} pass(es)?\b", why["n_epochs"])
    if batch == "auto" or numbers.batch_size < batch:  # type: ignore[comparison-overlap]
        assert why["batch_size"].startswith(str(numbers.batch_size))
    assert why["training"].startswith(numbers.training)


@pytest.mark.parametrize(
    ("count", "origin", "expected"),
    [
        (11, "built in", "150 passes: a pass over 11 examples in batches of 4 is 3 steps, and .* at least 450 steps."),
        (500, "built in", "8 passes: a pass over 500 examples in batches of 8 is 63 steps, and .* at least 450 steps."),
        (2000, "built in", "6 passes, the fewest that .* gets: a pass .* is 125 steps, 750 steps in all."),
        (10_000, "built in", "3 passes: .* is 625 steps, and more passes would not stay within 2,000 steps."),
        (50_000, "built in", "1 pass: .* is 3,125 steps, and more passes would not stay within 2,000 steps."),
        (2000, "base", "2 passes, the fewest that an adapter on a trained base gets: .* 250 steps in all."),
        (2000, "whole", "2 passes, the fewest that a trained base of which all weights move gets: .* in all."),
    ],
)
def test_the_passes_are_explained_by_the_rule_that_decided(count: int, origin: str, expected: str) -> None:
    assert re.fullmatch(expected, told(Hyperparameters(), count, ORIGINS[origin])["n_epochs"])


def test_a_batch_larger_than_the_file_is_the_file() -> None:
    assert told(Hyperparameters(batch_size=64), 10, BUILT_IN)["batch_size"] == "10: there are no more examples."


def test_the_batch_is_explained_by_the_table_that_decided() -> None:
    for rows, size in AUTO_BATCH_SIZES:
        numbers, _ = numbers_of(Hyperparameters(), rows - 1, BASE)
        assert numbers.batch_size == size
        assert f"below {rows:,} examples" in told(Hyperparameters(), rows - 1, BASE)["batch_size"]
    last = AUTO_BATCH_SIZES[-1][0]
    assert numbers_of(Hyperparameters(), last, BASE)[0].batch_size == AUTO_BATCH_SIZE_AT_MOST
    assert f"from {last:,} examples on" in told(Hyperparameters(), last, BASE)["batch_size"]


# --- which weights a job moves --------------------------------------------------------------------------


def test_a_base_gets_an_adapter_of_rank_16_and_twice_that_alpha_unless_asked_otherwise() -> None:
    assert numbers_of(Hyperparameters(), 100, BASE)[0].lora == Lora(rank=16, alpha=32, targets="all-linear")
    asked = Hyperparameters(lora_rank=4, lora_targets=("q_proj",), long_rows=LongRows.TRUNCATE)
    assert numbers_of(asked, 100, BASE)[0].shown() == {
        **numbers_of(Hyperparameters(), 100, BASE)[0].shown(),
        "training": "lora",
        "lora_rank": 4,
        "lora_alpha": 8,
        "lora_targets": ("q_proj",),
        "long_rows": "truncate",
    }


def test_a_job_that_trains_all_weights_has_no_numbers_of_an_adapter() -> None:
    shown = numbers_of(Hyperparameters(training=Training.FULL, lora_rank=8), 100, BASE)[0].shown()
    assert shown["training"] == "full"
    assert not any(name.startswith("lora") for name in shown)


def test_all_weights_of_a_trained_base_move_slowly_and_those_of_nothing_fast() -> None:
    full = Hyperparameters(training=Training.FULL)
    rates = [numbers_of(full, 100, origin)[0].learning_rate for origin in (BUILT_IN, WHOLE, BASE)]
    assert rates == [3e-3, 2e-5, 2e-5]
    assert numbers_of(Hyperparameters(), 100, ADAPTER)[0].learning_rate == 2e-4


def test_what_has_no_effect_is_said() -> None:
    asked = Hyperparameters(training=Training.FULL, lora_rank=8, lora_alpha=8)
    (said,) = without_effect(asked, method_of(asked, BASE))
    assert said == "'lora_rank', 'lora_alpha' have no effect: all weights are trained, without an adapter."
    assert without_effect(Hyperparameters(lora_rank=8), method_of(Hyperparameters(lora_rank=8), BASE)) == []


@pytest.mark.parametrize(
    ("origin", "asked", "param", "words"),
    [
        ("built in", {"training": "lora"}, "training", "starts from nothing.*choose a base model that has weights"),
        ("adapter", {"training": "full"}, "training", "is an adapter.*fine-tune the base model itself"),
        ("whole", {"training": "lora"}, "training", "all its weights and goes on so.*fine-tune its base model"),
        ("adapter", {"lora_rank": 16}, "lora_rank", "'lora_rank' is 16, but the model's adapter has 8.*Leave"),
        ("adapter", {"lora_alpha": 32}, "lora_alpha", "adapter has 8"),
        ("adapter", {"lora_targets": "all-linear"}, "lora_targets", "is all-linear, but .* has q_proj, v_proj"),
    ],
)
def test_a_model_goes_on_as_it_began_and_what_it_cannot_have_is_refused_with_the_remedy(
    origin: str, asked: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        method_of(Hyperparameters.from_json(asked), ORIGINS[origin])
    assert caught.value.param == f"hyperparameters.{param}"


def test_what_an_adapter_has_already_may_be_asked_for_again() -> None:
    same = {"training": "lora", "lora_rank": 8, "lora_alpha": 8, "lora_targets": ["q_proj", "v_proj"]}
    assert method_of(Hyperparameters.from_json(same), ADAPTER).lora == ADAPTER.lora


# --- manifests ------------------------------------------------------------------------------------------


def write_manifest(folder: Path, **values: Any) -> Path:
    (folder / MANIFEST).write_text(json.dumps(values))
    return folder


def test_a_fine_tune_tells_how_it_was_trained(tmp_path: Path) -> None:
    base = {"name": "mine", "path": "/somewhere", "revision": None}
    numbers = {"lora": {"rank": 8, "alpha": 8, "targets": ["q_proj", "v_proj"]}}
    assert origin_of(write_manifest(tmp_path, training="lora", base=base, hyperparameters=numbers)) == ADAPTER
    assert origin_of(write_manifest(tmp_path, training="full", base=base)) == WHOLE
    scratch = origin_of(write_manifest(tmp_path, training="full", base=base | {"path": None}))
    assert scratch == Origin(from_nothing=True, training=Training.FULL)


def test_a_fine_tune_of_the_first_version_has_the_adapter_of_then(tmp_path: Path) -> None:
    base = {"name": "mine", "path": "/somewhere", "revision": None}
    origin = origin_of(write_manifest(tmp_path, training="adapter", base=base, hyperparameters={"n_epochs": 2}))
    assert (origin.training, origin.lora) == (Training.ADAPTER, Lora(rank=16, alpha=32, targets="all-linear"))


def test_the_built_in_model_starts_from_nothing_and_any_other_was_trained_by_someone(tmp_path: Path) -> None:
    assert origin_of(None) is BUILT_IN
    assert origin_of(tmp_path) == origin_of(Path("Qwen/Qwen3-0.6B")) == BASE


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"training": "half"}', '{"training": "lora", "hyperparameters": 3}'])
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BaseModelUnusable, match=MANIFEST):
        origin_of(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"training": "half"}, '\'training\' is \'half\'; it must be "auto" or one of "full", "lora"'),
        ({"long_rows": True}, "'long_rows' is True"),
        ({"lora_rank": 0}, "whole number from 1"),
        ({"lora_targets": []}, "all-linear"),
        ({"lora_targets": "q_proj"}, "list of module names"),
        ({"lora_targets": [1]}, "list of module names"),
    ],
)
def test_a_value_that_is_none_is_named_with_what_would_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)):
        Hyperparameters.from_json(values)


def test_asking_needs_no_torch() -> None:
    asked = "import sys; import stillroom.student.hyperparameters, stillroom.student.manifest; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True).stdout == b"False\n"
