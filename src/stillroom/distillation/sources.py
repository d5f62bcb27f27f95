"""Where the rows come from, as a file says it: Azure's `training_data`, our `source`, in all their forms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillroom.clock import moment
from stillroom.distillation.problems import Fields, written
from stillroom.distillation.spec import Kind, Source

ELSEWHERE = ("azureml:", "wasbs:", "abfss:", "http:", "https:")


class Sources:
    """The sources of one file, whose relative paths are relative to `folder`."""

    def __init__(self, top: Fields, folder: Path) -> None:
        self._top = top
        self._folder = folder

    def read(self, is_azure: bool) -> tuple[Source, Source | None]:
        """The training rows, and those to validate with if the file names some."""
        top = self._top
        for ours, azures in (("source", "training_data"), ("validation_source", "validation_data")):
            if ours in top and azures in top:
                top.refuse(ours, f"stands beside `{azures}`, which means the same. Leave one out.")
        if is_azure:
            training = self._uri_file("training_data") if "source" not in top else self._source("source")
            validation = self._uri_file("validation_data") if "validation_source" not in top else None
            if validation is not None:
                return training, validation
        else:
            if "source" not in top:
                top.refuse("source", "is missing: name the rows to be labelled, such as `source: ./questions.jsonl`.")
            training = self._source("source")
        key = "validation_source" if "validation_source" in top else "validation_data"
        validation = self._source(key) if key in top else None
        if validation is not None and "validation_fraction" in top:
            top.refuse("validation_fraction", f"stands beside `{key}`, which has rows of its own. Leave one out.")
        return training, validation

    def _uri_file(self, key: str) -> Source:
        top = self._top
        given = top.take(key)
        if given is None:
            top.refuse(
                key, "is missing: label_generation needs training and validation data, {type: uri_file, path: FILE}."
            )
            return Source(key=key, kind=Kind.JSONL)
        if isinstance(given, str):
            return self._file(key, given, Kind.JSONL)
        asked = top.table(key)
        asked.refuse_unknown({"type", "path"})
        asked.choice("type", ("uri_file",), "uri_file")
        path = asked.text("path", needed="the .jsonl file with the rows.")
        return self._file(f"{key}.path", path, Kind.JSONL) if path else Source(key=key, kind=Kind.JSONL)

    def _source(self, key: str) -> Source:
        given = self._top.take(key)
        if isinstance(given, str):
            return self._file(key, given, None)
        asked = self._top.table(key)
        asked.refuse_unknown({*Kind, "path", "split", "columns", "system", "limit"})
        named = [name for name in (*Kind, "path") if name in asked]
        if len(named) != 1:
            if given is not None:
                self._top.refuse(key, f"names {len(named)} origins of rows; expected one of {', '.join(Kind)}.")
            return Source(key=key, kind=Kind.JSONL)
        more: dict[str, Any] = {
            "split": asked.text("split") or None,
            "columns": self._columns(asked),
            "system": asked.text("system") or None,
            "limit": asked.whole("limit", 0, low=1) or None,
        }
        if named[0] == Kind.STORED_COMPLETIONS:
            chosen = asked.table("stored_completions")
            return Source(key=key, kind=Kind.STORED_COMPLETIONS, filter=self._filter(chosen), **more)
        path = asked.text(named[0], needed="a file or folder.")
        return self._file(f"{key}.{named[0]}", path, None if named[0] == "path" else Kind(named[0]), **more)

    def _file(self, key: str, text: str, kind: Kind | None, **more: Any) -> Source:
        top = self._top
        if text.startswith(ELSEWHERE):
            top.refuse(
                key, f"is {written(text)}, which is not on this machine. Download it, and write the file's path."
            )
            return Source(key=key, kind=Kind.JSONL)
        path = (self._folder / Path(text).expanduser()).resolve()
        if not path.exists():
            top.refuse(key, f"is {written(text)}, but there is no {path}.")
        guessed = Kind.DATASET if path.is_dir() else Kind.PARQUET if path.suffix == ".parquet" else Kind.JSONL
        if kind is Kind.JSONL and path.is_dir():
            top.refuse(key, f"is {written(text)}, which is a folder; expected a .jsonl file.")
        if kind is Kind.DATASET and path.is_file():
            top.refuse(key, f"is {written(text)}, which is a file; expected the folder of a data set.")
        return Source(key=key, kind=kind or guessed, path=path, **more)

    def _columns(self, asked: Fields) -> dict[str, str]:
        columns = asked.table("columns")
        columns.refuse_unknown({"messages", "system", "user", "assistant"})
        found = {role: columns.text(role) for role in ("messages", "system", "user", "assistant") if role in columns}
        if found and "user" not in found and "messages" not in found:
            asked.refuse("columns", "names no column for `user`, which is what the teacher is asked.")
        return found

    def _filter(self, chosen: Fields) -> dict[str, Any]:
        chosen.refuse_unknown({"metadata", "model", "since", "search"})
        pairs = chosen.take("metadata")
        if pairs is not None and not (
            isinstance(pairs, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in pairs.items())
        ):
            chosen.refuse("metadata", f"is {written(pairs)}; expected names and texts.")
            pairs = None
        since = chosen.take("since")
        if since is not None:
            try:
                moment(str(since))
            except ValueError as error:
                chosen.refuse("since", f"is wrong: {error}.")
        return {
            "metadata": dict(pairs or {}),
            "model": chosen.text("model") or None,
            "since": None if since is None else str(since),
            "search": chosen.text("search") or None,
        }
