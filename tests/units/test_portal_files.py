"""The built portal is served from memory, and a checkout without one says how to build it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stillroom.api.portal import Portal
from stillroom.api.wire import Reply

SCRIPT = "assets/index-B2c4.js"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "accept-encoding": "gzip, deflate, br"}


@pytest.fixture
def portal(tmp_path: Path) -> Portal:
    """A portal of three files, beside a file that is none of its."""
    (tmp_path / "secret.txt").write_text("not the portal's")
    folder = tmp_path / "portal"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>stillroom</title>" + " " * 500)
    (folder / SCRIPT).write_text("export const a = 1;\n" * 500)
    (folder / "assets" / "dot-B2c4.png").write_bytes(bytes(range(256)))
    (folder / ".sources").write_text("digest")
    return Portal(folder)


def page(portal: Portal, path: str, method: str = "GET", **headers: str) -> Reply | None:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return portal.page(method, tuple(path.split("/")), given)


def test_every_page_of_the_portal_is_the_one_document(portal: Portal) -> None:
    for path in ("", "index.html", "completions", "jobs/ftjob-1", "models/gpt-4.1", "chat/completions"):
        for method in ("GET", "HEAD"):
            found = page(portal, path, method, **BROWSER)
            assert found is not None, path
            assert found.headers["content-type"] == "text/html; charset=utf-8"
            assert b"<title>stillroom</title>" in gzip.decompress(found.body)


def test_whoever_does_not_ask_for_html_is_told_that_a_path_is_unknown(portal: Portal) -> None:
    for accept in ("application/json", "*/*", "", "image/png"):
        assert page(portal, "chat/completions", accept=accept) is None
    assert page(portal, "chat/completions", "POST", **BROWSER) is None
    assert page(portal, "", accept="*/*") is not None


def test_a_file_is_told_by_its_type_and_kept_for_good_where_its_name_says_its_content(portal: Portal) -> None:
    script, document = page(portal, SCRIPT, accept="*/*"), page(portal, "")
    assert script is not None
    assert document is not None
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert document.headers["cache-control"] == "no-cache"


def test_files_are_compressed_for_those_who_say_they_can_read_it(portal: Portal) -> None:
    plain = page(portal, SCRIPT, accept_encoding="br, gzip;q=0")
    packed = page(portal, SCRIPT, accept_encoding="br;q=1.0, gzip;q=0.8")
    assert plain is not None
    assert packed is not None
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 2
    assert gzip.decompress(packed.body) == plain.body
    picture = page(portal, "assets/dot-B2c4.png", accept_encoding="gzip")
    assert picture is not None
    assert picture.body == bytes(range(256))


def test_a_document_that_is_known_is_not_sent_again(portal: Portal) -> None:
    first = page(portal, "", **BROWSER)
    assert first is not None
    for known in (first.headers["etag"], f'"x", {first.headers["etag"]}', "*"):
        again = page(portal, "jobs/ftjob-1", **BROWSER, if_none_match=known)
        assert again is not None
        assert (again.status, again.body) == (304, None)
        assert again.headers["etag"] == first.headers["etag"]
    changed = page(portal, "", **BROWSER, if_none_match='W/"other"')
    assert changed is not None
    assert changed.status == 200


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "assets/../../secret.txt", "assets/../index.html", ".sources", "assets", "assets/", "\0", "//"],
)
def test_only_names_that_were_built_are_files(portal: Portal, path: str) -> None:
    assert page(portal, path, accept="*/*") is None


def test_a_missing_asset_is_no_page(portal: Portal) -> None:
    assert page(portal, "assets/index-old.js", **BROWSER) is None


def test_a_checkout_without_the_build_says_how_to_make_one(tmp_path: Path) -> None:
    portal = Portal(tmp_path / "nothing")
    assert not portal.is_built
    for headers, kind in ((BROWSER, "text/html"), ({"accept": "*/*"}, "text/plain"), ({}, "text/plain")):
        found = page(portal, "", **headers)
        assert found is not None
        assert found.status == 200
        assert found.headers["content-type"].startswith(kind)
        assert b"make portal" in found.body
    deep = page(portal, "jobs/ftjob-1", **BROWSER)
    assert deep is not None
    assert deep.status == 404
    assert b"make portal" in deep.body
    assert page(portal, "chat/completions", accept="application/json") is None
