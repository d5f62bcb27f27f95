"""The reference pages say what the code does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stillroom import config

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
import reference  # noqa: E402


@pytest.mark.parametrize("name", ["configuration.md", "errors.md", "command-line.md", "http-api.md"])
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / "reference" / name).read_text() == reference.pages()[name], "run `make reference`"


def test_every_setting_is_on_the_page_of_its_table() -> None:
    page = reference.pages()["configuration.md"]
    for name, (*table, field) in config.variables().items():
        _, section = page.split(f"\n## [{table[0]}]\n" if table else "\n## Top level\n")
        rows = section.partition("\n## ")[0]
        assert f"| `{field}` |" in rows, name
        assert f"| `{name}` |" in rows, name


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "decisions" / "README.md").read_text()
    for path in (DOCS / "decisions").glob("0*.md"):
        assert f"({path.name})" in index
