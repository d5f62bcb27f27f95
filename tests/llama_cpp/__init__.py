"""llama.cpp as GGUF files meet it: a prebuilt library, called through its C interface.

The library comes from npm, where node-llama-cpp's authors publish it: `npm ci` in this folder, which `make test`
does. Only functions are used whose arguments have been the same for years; structs of parameters, which
grow with every version, are passed on as llama.cpp fills them.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int32, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
CONTEXT_TOKENS = 4096


class LlamaCpp:
    """One model in memory. Close it when done with it."""

    def __init__(self, path: Path) -> None:
        self._library = library = _library()
        self._model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        assert self._model, "".join(_said[-20:])
        parameters = library.llama_context_default_params()
        sizes = ctypes.cast(ctypes.pointer(parameters), POINTER(c_uint32))
        sizes[0] = sizes[1] = sizes[2] = CONTEXT_TOKENS  # of the context, of a batch, and of what is computed at once
        self._context = library.llama_init_from_model(self._model, parameters)
        assert self._context, "".join(_said[-20:])
        library.llama_set_n_threads(self._context, 1, 1)
        self._vocabulary = library.llama_model_get_vocab(self._model)

    def close(self) -> None:
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Token ids; control tokens that the text spells are read as such."""
        data = text.encode()
        ids = (c_int32 * (len(data) + 8))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), False, True)
        assert count >= 0
        return list(ids[:count])

    def is_end(self, token: int) -> bool:
        """Whether generation stops behind it."""
        return bool(self._library.llama_vocab_is_eog(self._vocabulary, token))

    def chat_template(self) -> str:
        return str((self._library.llama_model_chat_template(self._model, None) or b"").decode())

    def logits(self, ids: list[int]) -> list[float]:
        """Behind the ids, which follow those given since `forget`."""
        given = (c_int32 * len(ids))(*ids)
        assert self._library.llama_decode(self._context, self._library.llama_batch_get_one(given, len(ids))) == 0
        found = self._library.llama_get_logits_ith(self._context, -1)
        return list(found[: self._library.llama_vocab_n_tokens(self._vocabulary)])

    def forget(self) -> None:
        """Begins a new text."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)


_said: list[str] = []


@ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
def _hear(_level: int, text: bytes, _data: Any) -> None:
    _said.append(text.decode(errors="replace"))


class _Parameters(ctypes.Structure):
    """Larger than any version's: what lies behind its end is neither written nor read."""

    _fields_ = [("bytes", c_uint32 * 256)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        *[(name, c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")],
    ]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_log_set": (None, [c_void_p, c_void_p]),
    "llama_model_default_params": (_Parameters, []),
    "llama_context_default_params": (_Parameters, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, _Parameters]),
    "llama_init_from_model": (c_void_p, [c_void_p, _Parameters]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_model_chat_template": (c_char_p, [c_void_p, c_char_p]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_batch_get_one": (_Batch, [POINTER(c_int32), c_int32]),
    "llama_decode": (c_int32, [c_void_p, _Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_free": (None, [c_void_p]),
    "llama_model_free": (None, [c_void_p]),
}


@cache
def _library() -> Any:
    found = sorted(FOLDER.glob("node_modules/@node-llama-cpp/*/bins/*/libllama.*"))
    if not found:
        pytest.skip(f"No llama.cpp here: run `npm ci` in {FOLDER}; it is prebuilt for Linux on x86-64.")
    folder = found[0].parent
    ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    backends = ctypes.CDLL(str(next(folder.glob("libggml.v*.so"))), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    # One of several builds for CPUs of different ages.
    backends.ggml_backend_load_all_from_path(str(folder).encode())
    library.llama_log_set(_hear, None)
    library.llama_backend_init()
    return library
