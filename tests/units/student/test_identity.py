"""Every form of a student says what its trainer's model said, or is refused with the first difference."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from stillroom.errors import BaseModelUnusable, ModelNotFound, StudentDiffers
from stillroom.student.bases.base_models import open_artefact
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.bases.conversations import CONVERSATIONS
from stillroom.student.bases.identity import (
    FILE,
    LEAST_AGREEMENT,
    MOMENT,
    MOST_DIVERGENCE,
    NEW_TOKENS,
    TIE,
    TOLERANCE,
    Answer,
    Identity,
    compare,
    identity_of,
    read_identity,
    verify,
)
from stillroom.student.chats.examples import Row
from stillroom.student.chats.template import ChatTemplate
from stillroom.student.chats.tokenizer import train_tokenizer
from stillroom.student.hyperparameters import Hyperparameters
from stillroom.student.manifest import MANIFEST
from stillroom.student.serving.engine import Engine
from stillroom.student.serving.proving import Proof, attach_proven

from .conftest import save_tiny_base, trained_run


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, ticket_rows: list[Row]) -> Path:
    """A trained adapter, and in `base` beside it what it was trained on."""
    folder = tmp_path_factory.mktemp("adapter")
    base = save_tiny_base(folder / "base", ticket_rows, "llama")
    events = trained_run(
        folder / "run",
        ticket_rows,
        base=BaseReference(name="tiny", path=str(base), revision=None),
        hyperparameters=Hyperparameters(n_epochs=2, batch_size=4, learning_rate_multiplier=5.0),
    )
    return Path(events[-1]["path"])


def _proven(engine: Engine, folder: Path) -> Proof:
    return asyncio.run(attach_proven(engine, "kyle", open_artefact(folder), folder))


def mend(folder: Path) -> None:
    """Writes the sums of the files as they are now, as if they had always been so."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_there_are_32_conversations_with_every_role_tools_and_many_scripts() -> None:
    messages = [message for conversation in CONVERSATIONS for message in conversation["messages"]]
    assert len(CONVERSATIONS) == 32
    assert {message["role"] for message in messages} == {"system", "developer", "user", "assistant", "tool"}
    assert any(message.get("tool_calls") for message in messages)
    assert any("tools" in conversation for conversation in CONVERSATIONS)
    letters = "".join(str(message["content"]) for message in messages)
    for sample in ("チ", "明", "안", "ه", "क", "С", "ό", "ห", "👩‍👩", "<|im_start|>"):
        assert sample in letters


def test_the_engine_says_what_the_trainer_said(trained_folder: Path, engine: Engine) -> None:
    proof = _proven(engine, trained_folder)
    assert proof.agreement is not None
    assert proof.agreement.conversations == 32 and proof.agreement.tokens > 32 * NEW_TOKENS / 2
    assert proof.agreement.agreement == 1 and proof.agreement.difference < TOLERANCE
    assert list(engine.stats()) == ["kyle"]


def test_a_merged_adapter_says_what_the_adapter_said(adapter: Path, engine: Engine) -> None:
    proof = _proven(engine, adapter)
    assert proof.agreement is not None and proof.agreement.agreement == 1


def test_what_is_written_down_has_no_words_of_the_training_file(trained_folder: Path, ticket_rows: list[Row]) -> None:
    written = (trained_folder / FILE).read_text()
    texts = [text for row in ticket_rows for text in row.texts() if len(text) > 30]
    assert texts and not any(text in written for text in texts)


def _weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3] += 3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant\\n", "assistant:\\n"))


def _end_of_turn(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    likeliest = [answer["predictions"][0][0][0] for answer in json.loads((folder / FILE).read_text())["answers"]]
    (folder / MANIFEST).write_text(json.dumps({**manifest, "end_ids": likeliest[:1]}))


def _scale_adapter(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def _alpha(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 64}))


def _base_weights(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    copy = shutil.copytree(manifest["base"]["path"], folder.parent / "other-base")
    _weights(copy)
    manifest["base"]["path"] = str(copy)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("kind", "change", "where"),
    [
        ("full", _weights, r"at position \d+ of the answer to conversation \d+"),
        ("full", _template, r"token \d+ stands instead of \d+ at position \d+ of the prompt of conversation 1\b"),
        ("full", _end_of_turn, r"the answer to conversation 1 ends after 1 of \d+ tokens"),
        ("adapter", _scale_adapter, r"at position \d+ of the answer to conversation \d+"),
        ("adapter", _alpha, r"at position \d+ of the answer to conversation \d+"),
        ("adapter", _base_weights, r"at position \d+ of the answer to conversation \d+"),
    ],
)
def test_a_student_that_was_changed_is_not_served_and_the_first_difference_is_named(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    engine: Engine,
    kind: str,
    change: Callable[[Path], None],
    where: str,
) -> None:
    source: Path = request.getfixturevalue("trained_folder" if kind == "full" else "adapter")
    copied = shutil.copytree(source, tmp_path / "copy")
    change(copied)
    mend(copied)
    with pytest.raises(StudentDiffers, match=where):
        _proven(engine, copied)
    assert engine.stats() == {}
    with pytest.raises(ModelNotFound):
        engine.student("kyle")


def test_a_refused_student_leaves_the_one_before_it_where_it_is(
    trained_folder: Path, tmp_path: Path, engine: Engine
) -> None:
    _proven(engine, trained_folder)
    served = engine.student("kyle")
    copy = shutil.copytree(trained_folder, tmp_path / "copy")
    _template(copy)
    mend(copy)
    with pytest.raises(StudentDiffers):
        _proven(engine, copy)
    assert engine.student("kyle") is served


def test_a_folder_from_before_there_were_proofs_is_served_without_one(
    trained_folder: Path, tmp_path: Path, engine: Engine
) -> None:
    copy = shutil.copytree(trained_folder, tmp_path / "copy")
    (copy / FILE).unlink()
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["sha256"][FILE]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert _proven(engine, copy).agreement is None
    assert list(engine.stats()) == ["kyle"]


def test_a_proof_that_cannot_be_read_is_no_proof(trained_folder: Path, tmp_path: Path, engine: Engine) -> None:
    copy = shutil.copytree(trained_folder, tmp_path / "copy")
    (copy / FILE).write_text('{"arithmetic": "float32"}')
    mend(copy)
    with pytest.raises(BaseModelUnusable, match=FILE):
        _proven(engine, copy)


def test_being_asked_changes_nothing_in_a_model_that_is_trained(trained_folder: Path) -> None:
    student = open_artefact(trained_folder)
    student.model.train()
    random = torch.get_rng_state()
    first = identity_of(student.model, student.template, context_tokens=student.context_tokens)
    assert student.model.training and torch.equal(torch.get_rng_state(), random)
    assert identity_of(student.model, student.template, context_tokens=student.context_tokens) == first


def test_bfloat16_is_held_to_bounds_and_a_changed_model_breaks_them(trained_folder: Path, tmp_path: Path) -> None:
    identity = read_identity(trained_folder)
    assert identity is not None
    student = open_artefact(trained_folder)
    agreement = verify(identity, student.model.to(torch.bfloat16), student.template, form="In bfloat16, it")
    assert 0 < agreement.divergence < MOST_DIVERGENCE and agreement.agreement > LEAST_AGREEMENT
    changed = shutil.copytree(trained_folder, tmp_path / "changed")
    _weights(changed)
    mend(changed)
    student = open_artefact(changed)
    with pytest.raises(StudentDiffers, match=r"diverge by \d|% of its tokens"):
        verify(identity, student.model.to(torch.bfloat16), student.template, form="In bfloat16, it")


def _identity(*predictions: list[tuple[int, float]], arithmetic: str = "float32") -> Identity:
    answer = Answer(prompt_ids=[1], predictions=list(predictions))
    return Identity(arithmetic=arithmetic, conversations=CONVERSATIONS[:1], answers=[answer])


def test_two_tokens_that_were_as_good_as_equal_may_change_places() -> None:
    close, apart = [(7, -1.0), (9, -1.0 - TIE / 2)], [(7, -1.0), (9, -1.0 - TIE * 2)]
    other = [(9, -1.0), (7, -1.0)]
    agreement = compare(_identity(close, apart), [[other, other]], arithmetic="float32", form="It")
    assert (agreement.tokens, agreement.agreement) == (1, 1.0)  # what follows is said behind other words
    with pytest.raises(StudentDiffers, match=r"token 9 is said instead of 7 at position 1 .* conversation 1\b"):
        compare(_identity(apart), [[other]], arithmetic="float32", form="It")


@pytest.mark.parametrize("logprob", [-1.0 - 2 * TOLERANCE, -1.0 + 2 * TOLERANCE, float("nan")])
def test_the_same_token_with_another_probability_is_a_difference(logprob: float) -> None:
    with pytest.raises(StudentDiffers, match=re.escape(f"{logprob:.4f} instead of -1.0000")):
        compare(_identity([(7, -1.0)]), [[[(7, logprob)]]], arithmetic="float32", form="It")


def test_numbers_that_are_no_numbers_are_beyond_every_bound() -> None:
    with pytest.raises(StudentDiffers, match="nan"):
        compare(_identity([(7, -1.0)]), [[[(7, float("nan"))]]], arithmetic="bfloat16", form="It")


def test_the_divergence_is_that_of_the_whole_vocabulary_where_it_is_written_down() -> None:
    torch.manual_seed(3)
    trained, other = torch.randn(2, 5).log_softmax(-1)
    pairs = [sorted(enumerate(each.tolist()), key=lambda pair: -pair[1]) for each in (trained, other)]
    expected = float(functional.kl_div(other, trained, log_target=True, reduction="sum"))
    assert expected > 0.1
    with pytest.raises(StudentDiffers, match=f"diverge by {expected:.3f}"):
        compare(_identity(pairs[0]), [[pairs[1]]], arithmetic="bfloat16", form="It")


def test_a_template_that_writes_the_date_asks_the_same_on_every_day() -> None:
    tokenizer = train_tokenizer(["Today is the 3rd of May 2031."] * 3)
    tokenizer.chat_template = (
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    template = ChatTemplate(tokenizer, end_ids=[tokenizer.eos_token_id], name="dated")
    asked = template.encode_prompt([{"role": "user", "content": "?"}], moment=MOMENT)
    assert template.decode(asked) == "03 May 2031?"
    assert template.decode(template.encode_prompt([{"role": "user", "content": "?"}])) != "03 May 2031?"


def test_what_a_template_refuses_and_what_no_context_holds_is_written_down_as_such(trained_folder: Path) -> None:
    student = open_artefact(trained_folder)
    tokenizer = student.template.tokenizer
    strict = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token)  # type: ignore[attr-defined]
    strict.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        + str(tokenizer.chat_template)
    )
    template = ChatTemplate(strict, end_ids=student.template.end_ids, name="strict")
    identity = identity_of(student.model, template, context_tokens=100)
    for conversation, answer in zip(CONVERSATIONS, identity.answers, strict=True):
        refused = conversation["messages"][0]["role"] in ("system", "developer")
        assert (answer.prompt_ids is None) == refused
        assert bool(answer.predictions) == (answer.prompt_ids is not None and len(answer.prompt_ids) <= 92)
    verify(identity, student.model, template, form="It")
    with pytest.raises(StudentDiffers, match="no longer refuses conversation 2"):
        verify(identity, student.model, student.template, form="It")


def _of(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_what_was_written_down_is_what_is_read(trained_folder: Path) -> None:
    identity = read_identity(trained_folder)
    assert identity is not None
    assert identity.arithmetic == "float32"
    assert _of(identity.conversations) == _of(CONVERSATIONS)
    assert len(identity.answers) == 32
