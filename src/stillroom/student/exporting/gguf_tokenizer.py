"""A tokenizer as llama.cpp must be told of it, and back.

llama.cpp has two kinds. One merges bytes within words, which it finds by rules of its own that a file names
(`tokenizer.ggml.pre`); the other merges characters by scores, as SentencePiece does, and knows no words. Which
rule is a tokenizer's own is found by trying: it must make the same ids of all our texts, else the model is
refused. What llama.cpp does not do is to normalise text (NFC), which some tokenizers do before they split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from jinja2 import TemplateError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stillroom.errors import InvalidRequest
from stillroom.student.bases.conversations import CONVERSATIONS
from stillroom.student.chats.template import text_of

BYTES, CHARACTERS = "gpt2", "llama"  # what GGUF calls the two kinds
SPACE = "▁"  # how the second kind writes one
NEVER_MERGED = -1e6
STRIPS = "phi-3"
"""llama.cpp drops whitespace behind control tokens where a model's name has this in it, and nowhere else."""
_NEVER_STRIPPED = ("<unk>", "<s>", "<|endoftext|>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NAMED = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
"""Tokens with a meaning: transformers' word for each, and GGUF's."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
_BREAKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """One of llama.cpp's ways to split text into the words that merges of bytes stay within."""

    name: str
    patterns: tuple[str, ...]
    """Each splits further what the one before it left."""
    ignore_merges: bool = False
    """A word that is in the vocabulary is one token, whatever the merges would make of it."""

    def apply_to(self, tokenizer: Tokenizer) -> None:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, as_bytes])


SPLITTINGS = (
    Splitting(name="gpt-2", patterns=(_GPT2,)),
    Splitting(name="smollm", patterns=(r"\p{N}", _GPT2)),
    Splitting(name="qwen2", patterns=(rf"{_CASELESS}|\p{{N}}|{_BREAKS}",)),
    Splitting(name="llama-bpe", patterns=(rf"{_CASELESS}|\p{{N}}{{1,3}}|{_BREAKS}",), ignore_merges=True),
    Splitting(name="dbrx", patterns=(rf"{_CASELESS}|\p{{N}}{{1,3}}|{_BREAKS}",)),
)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, *, rows: int) -> None:
    """Tells the file of tokenizer and chat template. `rows` of the model, of which there may be more than tokens.

    Raises InvalidRequest for a tokenizer that llama.cpp cannot be told of.
    """
    backend = _backend(tokenizer)
    told = json.loads(backend.to_str())
    tokens, kinds = _vocabulary(tokenizer, rows)
    if told["model"]["type"] == "BPE" and told["model"].get("byte_fallback"):
        _add_characters(writer, tokenizer, told, tokens, kinds)
    else:
        _add_bytes(writer, tokenizer, told)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for kind, key in _NAMED.items():
        index = getattr(tokenizer, f"{kind}_token_id")
        if index is not None:
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", index)
    bare = backend.encode("a", add_special_tokens=True).ids
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and bare[:1] == [tokenizer.bos_token_id])
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def name_for(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """The model's name in the file, by which llama.cpp must know whether to drop whitespace. Raises InvalidRequest."""
    strips = any(token.special and token.rstrip for token in tokenizer.added_tokens_decoder.values())
    if strips and not {"</s>", *_NEVER_STRIPPED} <= tokenizer.get_vocab().keys():
        raise _refusal()  # llama.cpp looks these up by name
    plain = re.sub("phi-?3", "phi 3", name, flags=re.IGNORECASE)
    return f"{plain} ({STRIPS})" if strips else plain


def tokenizer_in(path: Path, like: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer that a file tells of, built to do as llama.cpp does; it normalises text as `like` does."""
    told = _Told(path)
    built = told.of_characters() if told("ggml.model") == CHARACTERS else told.of_bytes(_backend(like).normalizer)
    special = {gguf.TokenType.CONTROL: True, gguf.TokenType.USER_DEFINED: False, gguf.TokenType.UNKNOWN: True}
    built.add_tokens(
        [
            AddedToken(
                token, special=special[kind], normalized=False, rstrip=told.strips and token not in _NEVER_STRIPPED
            )
            for token, kind in zip(told.tokens, told("ggml.token_type"), strict=True)
            if kind in special
        ]
    )
    ids = {f"{kind}_token": told(f"ggml.{key}_token_id") for kind, key in _NAMED.items()}
    named = {name: told.tokens[index] for name, index in ids.items() if index is not None}
    made = PreTrainedTokenizerFast(tokenizer_object=built, **named)
    made.chat_template = told("chat_template")
    return made


class _Told:
    """What a file tells of its tokenizer."""

    def __init__(self, path: Path) -> None:
        self._fields = gguf.GGUFReader(path).fields
        self.tokens: list[str] = self("ggml.tokens")
        self.strips = STRIPS in str(self._fields["general.name"].contents()).lower()

    def __call__(self, key: str) -> Any:
        field = self._fields.get(f"tokenizer.{key}")
        return None if field is None else field.contents()

    def of_bytes(self, normalizer: Any) -> Tokenizer:
        splitting = next(each for each in SPLITTINGS if each.name == self("ggml.pre"))
        merges = [(left, right) for left, _, right in (text.partition(" ") for text in self("ggml.merges"))]
        built = Tokenizer(models.BPE(vocab=self._ids(), merges=merges, ignore_merges=splitting.ignore_merges))
        splitting.apply_to(built)
        built.normalizer = normalizer
        built.decoder = decoders.ByteLevel()
        return built

    def of_characters(self) -> Tokenizer:
        ids, scores = self._ids(), self("ggml.scores")
        # Any two tokens merge that make a third, the likeliest third first.
        merges = [
            (token[:at], token[at:])
            for token in sorted(self.tokens, key=lambda token: -scores[ids[token]])
            if scores[ids[token]] > NEVER_MERGED
            for at in range(1, len(token))
            if token[:at] in ids and token[at:] in ids
        ]
        unknown = self.tokens[self("ggml.unknown_token_id")]
        built = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=True, fuse_unk=True, unk_token=unknown))
        built.normalizer = _with_spaces(prefix=self("ggml.add_space_prefix"))
        built.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        return built

    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


def _vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[list[str], list[gguf.TokenType]]:
    added = tokenizer.added_tokens_decoder
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for index in range(max(rows, max(by_id) + 1)):
        # Models have more rows than their tokenizers have tokens, so that the count divides well.
        tokens.append(added[index].content if index in added else by_id.get(index, f"[PAD{index}]"))
        if index in added:
            kinds.append(gguf.TokenType.CONTROL if added[index].special else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL if index in by_id else gguf.TokenType.UNUSED)
    return tokens, kinds


def _add_bytes(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, told: dict[str, Any]) -> None:
    model = told["model"]
    if model["type"] != "BPE" or not _normalizes_nothing_but_nfc(told["normalizer"]):
        raise _refusal()
    texts = list(_texts(tokenizer))
    expected = _ids_of(_backend(tokenizer), texts)
    for splitting in SPLITTINGS:
        model["ignore_merges"] = splitting.ignore_merges
        candidate = Tokenizer.from_str(json.dumps(told))
        splitting.apply_to(candidate)
        if _ids_of(candidate, texts) == expected:
            break
    else:
        raise _refusal()
    writer.add_tokenizer_model(BYTES)
    writer.add_tokenizer_pre(splitting.name)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in model["merges"]])


def _add_characters(
    writer: gguf.GGUFWriter,
    tokenizer: PreTrainedTokenizerBase,
    told: dict[str, Any],
    tokens: Sequence[str],
    kinds: list[gguf.TokenType],
) -> None:
    """Marks in `kinds` also which tokens are bytes, and which stands for what is unknown."""
    rendered = list(_rendered(tokenizer))
    expected = _ids_of(_backend(tokenizer), rendered)
    told["pre_tokenizer"] = None
    for prefix in (True, False):
        candidate = Tokenizer.from_str(json.dumps(told))
        candidate.normalizer = _with_spaces(prefix=prefix)
        if _ids_of(candidate, rendered) == expected:
            break
    else:
        raise _refusal()
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(told["model"]["merges"]):
        ranks.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), rank)
    for index, token in enumerate(tokens):
        if index == tokenizer.unk_token_id:
            kinds[index] = gguf.TokenType.UNKNOWN
        elif kinds[index] is gguf.TokenType.NORMAL and _BYTE.fullmatch(token):
            kinds[index] = gguf.TokenType.BYTE
    writer.add_tokenizer_model(CHARACTERS)
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(prefix)
    writer.add_token_scores([-float(ranks[token]) if token in ranks else NEVER_MERGED for token in tokens])


def _with_spaces(*, prefix: bool) -> Any:
    """How llama.cpp writes spaces before it merges characters; each stretch between control tokens may get one more."""
    written = normalizers.Replace(" ", SPACE)
    return normalizers.Sequence([normalizers.Prepend(SPACE), written]) if prefix else written


def _normalizes_nothing_but_nfc(told: dict[str, Any] | None) -> bool:
    if told is None or told["type"] == "NFC":
        return True
    return told["type"] == "Sequence" and all(map(_normalizes_nothing_but_nfc, told["normalizers"]))


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InvalidRequest("A tokenizer without tokenizer.json cannot be exported as GGUF.", param="format")
    return backend


def _refusal() -> InvalidRequest:
    return InvalidRequest(
        "The tokenizer of this model splits text in a way that cannot be told to llama.cpp from here. Export the model "
        "as safetensors, and convert that with llama.cpp's own script.",
        param="format",
    )


def _ids_of(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def _texts(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for conversation in CONVERSATIONS:
        for message in conversation["messages"]:
            yield text_of(message.get("content"))
            yield json.dumps(message, ensure_ascii=False, indent=1)
    yield from _rendered(tokenizer)


def _rendered(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Our texts in chats: what stands before a text decides whether it begins with a space."""
    for text in (text_of(message.get("content")) for chat in CONVERSATIONS for message in chat["messages"]):
        messages = [{"role": "user", "content": text}]
        try:
            yield str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError):
            yield text  # there is no template, or it refuses the question
