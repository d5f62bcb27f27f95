"""The portal's two catalogues say the same things, and say what the pages ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "portal" / "src"
PLURAL = re.compile(r"_(?:zero|one|two|few|many|other)$")
FIELD = re.compile(r"\{(\w+)\}")
JAPANESE = re.compile(r"[぀-ヿ㐀-鿿]")
KEY_IN_CODE = re.compile(r"""["'`](([a-z]+)\.[a-z0-9_]+(?:\$\{[^`]*)?)["'`]""")
# What a Japanese reader sees as it is: names, and texts that are figures alone.
SAME_IN_BOTH = re.compile(r"^[\s\d\W_]*$|^(?:\{\w+\}|[A-Za-z0-9_.@/+%:() -]{1,24}|[\s\W])*$")


def catalogue(language: str) -> dict[str, str]:
    """Every text of a language by its whole key."""
    found = {}
    for path in sorted((SOURCES / "i18n" / language).glob("*.json")):
        for name, text in json.loads(path.read_text(encoding="utf-8")).items():
            found[f"{path.stem}.{name}"] = text
    return found


def bare(keys: object) -> set[str]:
    return {PLURAL.sub("", key) for key in keys}  # type: ignore[attr-defined]


ENGLISH, JAPANESE_TEXTS = catalogue("en"), catalogue("ja")


def test_both_languages_have_the_same_texts() -> None:
    assert bare(ENGLISH) == bare(JAPANESE_TEXTS)


def test_a_missing_text_would_be_noticed() -> None:
    some = next(key for key in JAPANESE_TEXTS if not PLURAL.search(key))
    assert bare(ENGLISH) != bare(JAPANESE_TEXTS.keys() - {some})


@pytest.mark.parametrize("part", sorted({key.split(".")[0] for key in ENGLISH}))
def test_a_text_fills_in_the_same_fields_in_both_languages(part: str) -> None:
    for key, text in ENGLISH.items():
        if not key.startswith(f"{part}."):
            continue
        other = JAPANESE_TEXTS.get(key) or JAPANESE_TEXTS[f"{PLURAL.sub('', key)}_other"]
        # A singular may say "one" without its number.
        assert set(FIELD.findall(text)) <= set(FIELD.findall(other)), key
        if not key.endswith("_one"):
            assert set(FIELD.findall(text)) == set(FIELD.findall(other)), key


def test_japanese_texts_are_japanese() -> None:
    left = [
        key for key, text in JAPANESE_TEXTS.items() if not JAPANESE.search(text) and not SAME_IN_BOTH.fullmatch(text)
    ]
    assert left == []


def test_no_text_is_empty() -> None:
    assert [key for key, text in (ENGLISH | JAPANESE_TEXTS).items() if not text.strip()] == []


def test_every_text_is_asked_for_by_some_page() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.ts*"))
    asked = {match[0] for match in KEY_IN_CODE.findall(code)}
    whole = {key for key in asked if "${" not in key}
    begun = tuple(key.split("${")[0] for key in asked if "${" in key)
    unused = [key for key in bare(ENGLISH) if key not in whole and not key.startswith(begun)]
    assert sorted(unused) == []


def test_texts_are_sorted_by_name() -> None:
    for path in sorted((SOURCES / "i18n").rglob("*.json")):
        names = list(json.loads(path.read_text(encoding="utf-8")))
        assert names == sorted(names), path
