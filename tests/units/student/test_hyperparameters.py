"""What "auto" is told to be, and why: by counts alone, for whoever has no torch at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import BaseModelUnusable
from stillroom.student.hyperparameters import Hyperparameters, Training, reasons, resolve
from stillroom.student.manifest import MANIFEST, training_on

ASKED = st.one_of(st.just("auto"), st.integers(1, 50))


def told(wanted: Hyperparameters, count: int, training: Training) -> dict[str, str]:
    numbers = resolve(wanted, num_examples=count, training=training)
    return reasons(wanted, numbers, num_examples=count, training=training)


@given(st.integers(1, 100_000), st.sampled_from(Training), ASKED, ASKED)
def test_each_reason_is_one_sentence_that_names_the_number(
    count: int, training: Training, epochs: int, batch: int
) -> None:
    wanted = Hyperparameters(n_epochs=epochs, batch_size=batch)
    numbers = resolve(wanted, num_examples=count, training=training)
    why = told(wanted, count, training)
    assert list(why) == ["n_epochs", "batch_size", "learning_rate_multiplier"]
    assert all(re.fullmatch(r"[^.]+(\d\.\d[^.]*)*\.", sentence) for sentence in why.values())
    if epochs == "auto":  # type: ignore[comparison-overlap]
        assert re.match(rf"{numbers.n_epochs} pass(es)?\b", why["n_epochs"])
    if batch == "auto" or numbers.batch_size < batch:  # type: ignore[comparison-overlap]
        assert why["batch_size"].startswith(str(numbers.batch_size))


@pytest.mark.parametrize(
    ("count", "training", "expected"),
    [
        (11, "full", "150 passes: a pass over 11 examples in batches of 4 is 3 steps, and .* gets at least 450 steps."),
        (1000, "full", "6 passes, the fewest that .* gets: a pass .* is 125 steps, 750 steps in all."),
        (10_000, "full", "3 passes: .* is 625 steps, and more passes would not stay within 2,000 steps."),
        (50_000, "full", "1 pass: .* is 3,125 steps, and more passes would not stay within 2,000 steps."),
        (1000, "adapter", "2 passes, the fewest that an adapter on a trained base gets: .* 250 steps in all."),
    ],
)
def test_the_passes_are_explained_by_the_rule_that_decided(count: int, training: str, expected: str) -> None:
    assert re.fullmatch(expected, told(Hyperparameters(), count, Training(training))["n_epochs"])


def test_a_batch_larger_than_the_file_is_the_file() -> None:
    assert told(Hyperparameters(batch_size=64), 10, Training.FULL)["batch_size"] == "10: there are no more examples."


@pytest.mark.parametrize("training", Training)
def test_a_fine_tune_goes_on_as_it_began(tmp_path: Path, training: Training) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"training": training.value}))
    assert training_on(tmp_path) is training


def test_the_built_in_model_is_trained_whole_and_any_other_gets_an_adapter(tmp_path: Path) -> None:
    assert training_on(None) is Training.FULL
    assert training_on(tmp_path) is training_on(Path("Qwen/Qwen3-0.6B")) is Training.ADAPTER


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"training": "half"}'])
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BaseModelUnusable, match=MANIFEST):
        training_on(tmp_path)


def test_asking_needs_no_torch() -> None:
    asked = "import sys; import stillroom.student.hyperparameters, stillroom.student.manifest; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True).stdout == b"False\n"
