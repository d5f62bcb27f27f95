"""Exports: what transformers, peft and llama.cpp make of them is what the student says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stillroom.errors import Conflict, InvalidRequest, StudentDiffers
from stillroom.student.bases import identity as identity_module
from stillroom.student.bases.base_models import open_artefact
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.bases.conversations import CONVERSATIONS
from stillroom.student.bases.identity import NEW_TOKENS, Agreement, Prediction, compare, read_identity
from stillroom.student.chats.examples import Row
from stillroom.student.chats.template import text_of
from stillroom.student.exporting.export import Exported, export_model
from stillroom.student.exporting.formats import PRECISIONS, Format
from stillroom.student.exporting.gguf import write_gguf
from stillroom.student.exporting.gguf_tokenizer import SPLITTINGS, Splitting, tokenizer_in
from stillroom.student.hyperparameters import Hyperparameters
from tests.llama_cpp import LlamaCpp

from .conftest import save_tiny_base, trained_run
from .test_identity import mend

PLAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import AutoPeftModelForCausalLM

torch.set_num_threads(1)
said = {}
asked = json.load(sys.stdin)
for folder in sys.argv[1:]:
    opener = AutoPeftModelForCausalLM if folder.endswith("adapter") else AutoModelForCausalLM
    model, tokenizer = opener.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said[folder] = []
    for chat in asked:
        prompt = tokenizer.apply_chat_template(
            chat["messages"], tools=chat.get("tools"), add_generation_prompt=True, return_tensors="pt",
            sanitize_control_tokens=True,
        )
        answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
        said[folder].append([prompt["input_ids"][0].tolist(), answer[0, prompt["input_ids"].shape[1]:].tolist()])
assert "stillroom" not in sys.modules
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, ticket_rows: list[Row]) -> dict[str, Path]:
    """Trained adapters by the architecture of their bases."""
    made = {}
    for architecture in ("llama", "qwen3"):
        folder = tmp_path_factory.mktemp(architecture)
        base = save_tiny_base(folder / "base", ticket_rows, architecture)
        events = trained_run(
            folder / "run",
            ticket_rows,
            base=BaseReference(name=f"tiny-{architecture}", path=str(base), revision=None),
            hyperparameters=Hyperparameters(n_epochs=2, batch_size=4, learning_rate_multiplier=5.0),
        )
        made[architecture] = Path(events[-1]["path"])
    return made


@pytest.fixture(scope="module")
def trained(trained_folder: Path, adapters: dict[str, Path]) -> dict[str, Path]:
    return {"scratch": trained_folder, **adapters}


def test_plain_transformers_and_peft_say_the_same_words(trained: dict[str, Path], tmp_path: Path) -> None:
    folders = {}
    for name, kind in (
        ("scratch", "safetensors"),
        ("llama", "safetensors"),
        ("llama", "adapter"),
        ("qwen3", "adapter"),
    ):
        to = tmp_path / f"{name}-{kind}"
        assert export_model(trained[name], to, kind).agreement.agreement == 1
        folders[str(to)] = trained[name]
    # Plain templates know neither developers nor parts nor refusals; those are what the trainer made plain.
    numbers = [
        number
        for number, chat in enumerate(CONVERSATIONS)
        if all(m["role"] != "developer" and isinstance(m["content"], str) for m in chat["messages"])
    ]
    asked = json.dumps([CONVERSATIONS[number] for number in numbers])
    said = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, *folders], input=asked, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    for folder, answers in json.loads(said.stdout).items():
        identity = read_identity(folders[folder])
        assert identity is not None
        expected = [identity.answers[number] for number in numbers]
        assert [prompt for prompt, _ in answers] == [answer.prompt_ids for answer in expected]
        tokens = [[prediction[0][0] for prediction in answer.predictions] for answer in expected]
        # A long prompt, which has no room behind it for an answer, was asked all the same here.
        assert [said[: len(each)] for (_, said), each in zip(answers, tokens, strict=True)] == tokens
        assert sum(map(len, tokens)) > 100


def _heard(model: LlamaCpp, prompts: list[list[int]]) -> Iterator[list[Prediction]]:
    for prompt in prompts:
        model.forget()
        said: list[Prediction] = []
        ids = prompt
        while len(said) < NEW_TOKENS and not (said and model.is_end(said[-1][0][0])):
            values, tokens = torch.tensor(model.logits(ids)).log_softmax(-1).topk(20)
            said.append(list(zip(tokens.tolist(), values.tolist(), strict=True)))
            ids = [said[-1][0][0]]
        yield said


def _in_llama_cpp(artefact: Path, exported: Exported) -> Agreement:
    """What llama.cpp says, held to what the trainer's model said, as exports are."""
    identity = read_identity(artefact)
    assert identity is not None
    (file,) = exported.folder.glob("*.gguf")
    model = LlamaCpp(file)
    prompts = [answer.prompt_ids or [] for answer in identity.answers if answer.predictions]
    heard = list(_heard(model, prompts))
    model.close()
    # llama.cpp keeps keys and values in float16, so it is other arithmetic also where the file is float32.
    return compare(identity, heard, arithmetic=f"{exported.precision}, llama.cpp's", form="llama.cpp")


@pytest.mark.parametrize(
    ("name", "precision"),
    [("llama", "f16"), ("qwen3", "f16"), *(("scratch", each) for each in PRECISIONS[Format.GGUF])],
)
def test_llama_cpp_says_what_the_trainer_said(
    trained: dict[str, Path], tmp_path: Path, name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So little training leaves many tokens almost as likely as the first: rounded weights change more of them than
    # those of a student that knows its task.
    monkeypatch.setattr(identity_module, "LEAST_AGREEMENT", 0.8)
    exported = export_model(trained[name], tmp_path / "export", "gguf", precision=precision)
    found = _in_llama_cpp(trained[name], exported)
    # Tighter than what an export is held to: these bounds say how good ours are.
    assert found.divergence < (0.002 if precision == "q8_0" else 0.0005)
    assert found.agreement >= (0.8 if precision == "q8_0" else 0.95)
    assert found.tokens > 100


def test_llama_cpp_reads_the_rendered_conversations_as_we_do(trained: dict[str, Path], tmp_path: Path) -> None:
    export_model(trained["llama"], tmp_path / "export", "gguf", precision="f16")
    (file,) = (tmp_path / "export").glob("*.gguf")
    tokenizer = open_artefact(trained["llama"]).template.tokenizer
    model = LlamaCpp(file)
    assert model.chat_template() == tokenizer.chat_template
    assert model.is_end(tokenizer.eos_token_id)
    for conversation in CONVERSATIONS:
        messages = [{**message, "content": text_of(message.get("content"))} for message in conversation["messages"]]
        text = tokenizer.apply_chat_template(
            messages, tools=conversation.get("tools"), add_generation_prompt=True, tokenize=False
        )
        assert model.tokenize(text) == tokenizer.encode(text, add_special_tokens=False)
    model.close()


SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _random_model(kind: str, tokens: int) -> PreTrainedModel:
    torch.manual_seed(1)
    # More rows than tokens, as most models have.
    shape = {**SHAPE, "vocab_size": tokens + 13, "eos_token_id": 2}
    made: dict[str, Any] = {
        "llama3": lambda: LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=LLAMA_3, tie_word_embeddings=True)),
        "linear": lambda: LlamaForCausalLM(
            LlamaConfig(**shape, rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0})
        ),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**shape, sliding_window=None, head_dim=8)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shape)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=32)),
        "phi3": lambda: Phi3ForCausalLM(Phi3Config(**shape)),
        "gemma": lambda: GemmaForCausalLM(GemmaConfig(**shape)),
    }
    model: PreTrainedModel = made[kind]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter.add_(torch.randn_like(parameter) * 0.1)  # at first these are all alike
    return model


def _write(path: Path, model: PreTrainedModel, tokenizer: Any, precision: str = "f32") -> Path:
    write_gguf(path, model, tokenizer, end_ids=[2], name="tiny", precision=precision, tell=lambda *_: None)
    return path


@pytest.fixture(scope="module")
def tokenizer(trained_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(trained_folder)


@pytest.mark.parametrize("kind", ["llama3", "linear", "mistral", "qwen2", "qwen3", "phi3"])
def test_llama_cpp_computes_each_architecture_as_transformers_does(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    model = _random_model(kind, len(tokenizer))
    ids = tokenizer.encode("The ferry came at 8:14, and the lighthouse was closed for everyone but the painters. " * 4)
    assert len(ids) > 128
    opened = LlamaCpp(_write(tmp_path / "model.gguf", model, tokenizer))
    found = torch.tensor(opened.logits(ids))
    opened.close()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1]
    assert float((found - expected).abs().max()) < 0.02 * float(expected.std())


@pytest.mark.parametrize("splitting", SPLITTINGS, ids=lambda splitting: splitting.name)
def test_llama_cpp_splits_text_by_every_rule_as_the_tokenizer_does(tmp_path: Path, splitting: Splitting) -> None:
    texts = [text_of(m.get("content")) for chat in CONVERSATIONS for m in chat["messages"]]
    made = Tokenizer(models.BPE(ignore_merges=splitting.ignore_merges))
    splitting.apply_to(made)
    # Merges across whatever the rule keeps together, so that another rule makes other tokens.
    made.train_from_iterator(texts * 3, trainers.BpeTrainer(vocab_size=3000, special_tokens=["<a>", "<b>", "<c>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<c>")
    model = LlamaCpp(_write(tmp_path / "model.gguf", _random_model("qwen2", len(tokenizer)), tokenizer))
    for text in texts:
        assert model.tokenize(text) == tokenizer.encode(text, add_special_tokens=False), text
    model.close()


_LIKE_LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _by_pattern(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize(
    ("rule", "published", "ignores_merges", "normalizer"),
    [
        ("gpt-2", pre_tokenizers.ByteLevel(add_prefix_space=False), False, None),
        (
            "smollm",
            pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
            False,
            None,
        ),
        ("qwen2", _by_pattern(_LIKE_LLAMA_3.replace("{1,3}", "")), False, normalizers.NFC()),
        ("llama-bpe", _by_pattern(_LIKE_LLAMA_3), True, None),
    ],
)
def test_the_rule_of_well_known_tokenizers_is_found(
    tmp_path: Path, rule: str, published: Any, ignores_merges: bool, normalizer: Any
) -> None:
    texts = [text_of(m.get("content")) for chat in CONVERSATIONS for m in chat["messages"]]
    made = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    made.pre_tokenizer = published
    if normalizer:
        made.normalizer = normalizer
    made.train_from_iterator(texts * 3, trainers.BpeTrainer(vocab_size=3000, special_tokens=["<a>", "<b>", "<c>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<c>")
    path = _write(tmp_path / "model.gguf", _random_model("qwen2", len(tokenizer)), tokenizer)
    field = gguf.GGUFReader(path).fields["tokenizer.ggml.pre"]
    assert field.contents() == rule


@pytest.mark.parametrize("prefix", [True, False])
def test_llama_cpp_merges_characters_as_a_sentencepiece_tokenizer_does(tmp_path: Path, prefix: bool) -> None:
    texts = [text_of(m.get("content")) for chat in CONVERSATIONS for m in chat["messages"]]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    # llama.cpp takes what is spelled like a well-known control token for one, so none shall become a token.
    learned.train_from_iterator([text.replace("|", " ") for text in texts * 3], trainers.BpeTrainer(vocab_size=1200))
    told = json.loads(learned.to_str())
    # Bytes for what has no token, as Llama 2, Mistral and Phi-3 have them; and not every letter has one.
    known = {token: None for token in told["model"]["vocab"] if len(token) == 1 and (token < "а" or token == "▁")}
    merges = []
    for left, right in told["model"]["merges"]:
        if left in known and right in known:
            merges.append((left, right))
            known[left + right] = None
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *known]
    ids = {token: index for index, token in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    written = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), written]) if prefix else written
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    path = _write(tmp_path / "model.gguf", _random_model("mistral", len(tokenizer)), tokenizer)
    model, ours = LlamaCpp(path), tokenizer_in(path, tokenizer)
    for text in texts:
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        expected = tokenizer.encode(rendered, add_special_tokens=False)
        assert model.tokenize(rendered) == ours.encode(rendered, add_special_tokens=False) == expected, text
    model.close()
    assert "<0xE3>" in tokenizer.tokenize(CONVERSATIONS[14]["messages"][1]["content"])


@pytest.mark.parametrize("strips", [True, False])
def test_whitespace_behind_control_tokens_is_dropped_where_the_tokenizer_drops_it_whatever_the_model_is_called(
    tmp_path: Path, tokenizer: Any, strips: bool
) -> None:
    made = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    made.add_special_tokens([AddedToken(name, rstrip=strips) for name in ("<|user|>", "<|end|>")])
    made.add_special_tokens(["<s>", "<unk>", "<|endoftext|>"])
    made.add_special_tokens([AddedToken("</s>", rstrip=strips)])
    phi = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")
    model = _random_model("qwen2", len(phi))
    write_gguf(tmp_path / "m.gguf", model, phi, end_ids=[2], name="ft:Phi-3-x", precision="f32", tell=lambda *_: None)
    opened, ours = LlamaCpp(tmp_path / "m.gguf"), tokenizer_in(tmp_path / "m.gguf", phi)
    text = "<s> <|user|>\n  Hello there<|end|>\n<|endoftext|> x<|user|> y"
    expected = phi.encode(text, add_special_tokens=False)
    assert opened.tokenize(text) == ours.encode(text, add_special_tokens=False) == expected
    assert ("\n" in phi.decode(expected)) != strips
    opened.close()


def test_what_llama_cpp_cannot_be_told_is_refused_with_a_way_out(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"'gemma' cannot be exported as GGUF.*Export it as safetensors"):
        _write(tmp_path / "gemma.gguf", _random_model("gemma", len(tokenizer)), tokenizer)
    lower = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InvalidRequest, match="splits text in a way"):
        _write(tmp_path / "lower.gguf", _random_model("qwen2", len(lower)), lower)
    stretched = _random_model("llama3", len(tokenizer))
    stretched.config.rope_parameters = {**LLAMA_3, "rope_type": "dynamic"}
    with pytest.raises(InvalidRequest, match="Positions of the kind 'dynamic'"):
        _write(tmp_path / "dynamic.gguf", stretched, tokenizer)


def test_a_student_that_was_changed_is_not_exported_and_leaves_no_file(trained_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained_folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] *= -1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    mend(copy)
    for kind, words in (("safetensors", "at position 1 of the answer to conversation 1"), ("gguf", "diverge by")):
        with pytest.raises(StudentDiffers, match=f"The {kind} export of ft:test .*{words}"):
            export_model(copy, tmp_path / "exports" / kind, kind)
        assert list((tmp_path / "exports").iterdir()) == []


def test_an_adapter_on_another_base_is_not_exported(adapters: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(adapters["llama"], tmp_path / "copy")
    manifest = json.loads((copy / "stillroom.json").read_text())
    base = shutil.copytree(manifest["base"]["path"], tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] *= -1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    manifest["base"]["path"] = str(base)
    (copy / "stillroom.json").write_text(json.dumps(manifest))
    with pytest.raises(StudentDiffers):
        export_model(copy, tmp_path / "export", "adapter")
    assert not (tmp_path / "export").exists()


def test_what_cannot_be_asked_for_is_said(trained_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has no adapter.*Export it as safetensors or gguf"):
        export_model(trained_folder, tmp_path / "a", "adapter")
    with pytest.raises(InvalidRequest, match="'onnx' is none of safetensors, adapter, gguf"):
        export_model(trained_folder, tmp_path / "a", "onnx")
    with pytest.raises(InvalidRequest, match="'q8_0' is no precision for safetensors"):
        export_model(trained_folder, tmp_path / "a", "safetensors", precision="q8_0")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="is there already"):
        export_model(trained_folder, tmp_path / "taken", "gguf")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]


def test_a_readme_says_how_to_load_it_what_it_came_from_and_whose_licence_holds(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    export_model(
        trained["llama"], tmp_path / "m", "safetensors", precision="bf16", tell=lambda *each: told.append(each)
    )
    text = (tmp_path / "m" / "README.md").read_text()
    assert 'model = AutoModelForCausalLM.from_pretrained(".")\ntokenizer = AutoTokenizer.from_pretrained(".")' in text
    assert "tiny-llama" in text and "the base model's applies" in text and "bf16" in text
    assert [stage for stage, _, _ in told] == ["opening", "writing", "checking", "checking"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m").dtype == torch.bfloat16
    assert "without the system prompt" not in text

    copy = shutil.copytree(trained["scratch"], tmp_path / "copy")
    manifest = json.loads((copy / "stillroom.json").read_text())
    dropped = {"text": "Answer with JSON.", "tokens": 5}
    (copy / "stillroom.json").write_text(json.dumps({**manifest, "dropped_prompt": dropped}))
    export_model(copy, tmp_path / "g", "gguf")
    text = (tmp_path / "g" / "README.md").read_text()
    assert "Trained without the system prompt that its rows began with" in text
    assert "llama-server --jinja -m ft-test-f16.gguf" in text and (tmp_path / "g" / "ft-test-f16.gguf").is_file()
    assert "whoever trained it decides" in text


def test_generation_by_transformers_stops_where_ours_does(trained: dict[str, Path], tmp_path: Path) -> None:
    artefact = shutil.copytree(trained["scratch"], tmp_path / "copy")
    manifest = json.loads((artefact / "stillroom.json").read_text())
    (artefact / "stillroom.json").write_text(json.dumps({**manifest, "end_ids": [*manifest["end_ids"], 0]}))
    (artefact / "identity.json").unlink()
    manifest = json.loads((artefact / "stillroom.json").read_text())
    del manifest["sha256"]["identity.json"]
    (artefact / "stillroom.json").write_text(json.dumps(manifest))
    export_model(artefact, tmp_path / "m", "safetensors")
    ends = json.loads((tmp_path / "m" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [*manifest["end_ids"]]
