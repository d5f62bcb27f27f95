"""Rows longer than the model reads: refused, or cut and named; never cut in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import InvalidTrainingFile
from stillroom.student.chats.examples import LINES_NAMED, encode_rows, encode_rows_cut, read_rows
from stillroom.student.chats.template import ChatTemplate, Example

from .conftest import open_scratch, write_rows

CONTEXT = 60


def chat(prompt: int, answer: int, *, more: int = 0) -> dict[str, Any]:
    """A chat with so many words in its prompt and its answer, and maybe a second answer."""
    messages = [{"role": "user", "content": "go " * prompt}, {"role": "assistant", "content": "so " * answer}]
    if more:
        messages += [{"role": "user", "content": "go"}, {"role": "assistant", "content": "so " * more}]
    return {"messages": messages}


@pytest.fixture
def template(tmp_path: Path) -> ChatTemplate:
    rows = read_rows(write_rows(tmp_path / "words.jsonl", [chat(3, 3)] * 10))
    return open_scratch(tmp_path, rows).template


def cut(tmp_path: Path, template: ChatTemplate, rows: list[dict[str, Any]]) -> tuple[list[Example], list[str]]:
    said: list[str] = []
    read = read_rows(write_rows(tmp_path / "rows.jsonl", rows))
    return encode_rows_cut(read, template, context_tokens=CONTEXT, param="validation_file", warn=said.append), said


def test_a_long_row_is_refused_with_its_line_its_length_and_both_remedies(
    tmp_path: Path, template: ChatTemplate
) -> None:
    rows = read_rows(write_rows(tmp_path / "rows.jsonl", [chat(3, 3), chat(3, 200)]))
    with pytest.raises(InvalidTrainingFile, match=r"^Line 2 has 2\d\d tokens; .* at most 60\. Shorten .*truncate"):
        encode_rows(rows, template, context_tokens=CONTEXT)


def test_a_long_row_is_cut_at_its_end_to_what_the_model_reads(tmp_path: Path, template: ChatTemplate) -> None:
    short, long = [chat(3, 3)], [chat(3, 200)]
    (whole,) = encode_rows(read_rows(write_rows(tmp_path / "long.jsonl", long)), template, context_tokens=9999)
    (kept, beginning), (said,) = cut(tmp_path, template, short + long)
    assert len(kept.ids) < CONTEXT == len(beginning.ids)
    assert beginning.ids == whole.ids[:CONTEXT]
    assert beginning.mask == whole.mask[:CONTEXT]
    assert beginning.line == 2
    assert said == (
        f"Rows of the validation file that have more than the model's 60 tokens were cut at their end: "
        f"line 2 ({len(whole.ids)} tokens)."
    )


def test_rows_that_fit_are_as_they_were_and_nothing_is_said(tmp_path: Path, template: ChatTemplate) -> None:
    rows = [chat(3, 3), chat(1, 5, more=2)]
    read = read_rows(write_rows(tmp_path / "short.jsonl", rows))
    assert cut(tmp_path, template, rows) == (encode_rows(read, template, context_tokens=CONTEXT), [])


def test_a_row_that_keeps_no_word_to_train_is_left_out_and_named(tmp_path: Path, template: ChatTemplate) -> None:
    kept, said = cut(tmp_path, template, [chat(300, 3), chat(3, 3), chat(3, 200)])
    assert [each.line for each in kept] == [2, 3]
    assert [sentence.partition(" of ")[0] for sentence in said] == ["Rows", "Rows"]
    assert "cut at their end: line 3 (" in said[0]
    assert "left out" in said[1] and "line 1 (" in said[1]


def test_a_first_answer_that_fits_is_trained_though_the_second_does_not(tmp_path: Path, template: ChatTemplate) -> None:
    (kept,), (said,) = cut(tmp_path, template, [chat(3, 3, more=200)])
    assert any(kept.mask)
    assert "cut" in said


def test_many_long_rows_are_one_sentence_that_names_the_first_and_counts_the_rest(
    tmp_path: Path, template: ChatTemplate
) -> None:
    kept, (said,) = cut(tmp_path, template, [chat(3, 200)] * 1000)
    assert len(kept) == 1000
    assert said.count("tokens)") == LINES_NAMED
    assert said.endswith(f" and {1000 - LINES_NAMED} more.")


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path: Path, template: ChatTemplate) -> None:
    with pytest.raises(
        InvalidTrainingFile, match=r"anything to train within the model's 60 tokens\. Shorten"
    ) as caught:
        cut(tmp_path, template, [chat(300, 3)])
    assert caught.value.param == "validation_file"
