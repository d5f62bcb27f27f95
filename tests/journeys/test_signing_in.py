"""A browser signs in with a key or a one-time address, and its cookie works for the portal's own pages only."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from stillroom.api.portal import FOLDER
from tests.faults.wire import Answer, chat, payloads, question, send
from tests.support import Server, wait_for

SESSIONS = "/v1/stillroom/sessions"
CURRENT = f"{SESSIONS}/current"
KEYS = "/v1/stillroom/keys"
ADDRESS = re.compile(r"(http://\S+)/#signin=([\w-]{43})\s")
BROWSER = {"accept": "text/html,application/xhtml+xml", "accept_encoding": "gzip"}

needs_build = pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the portal is not built: `make portal`")


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def sign_in(server: Server, key: str | None = None) -> str:
    """The cookie of a browser that signed in."""
    return cookie_of(send(server, "POST", SESSIONS, {"key": key or server.key}, key=None))


def by_cookie(server: Server, method: str, path: str, body: Any = None, *, cookie: str, **headers: str) -> Answer:
    return send(server, method, path, body, key=None, cookie=cookie, **headers)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests may restart."""
    with Server(tmp_path_factory.mktemp("signing-in") / "data") as running:
        yield running


# --- signing in and out -------------------------------------------------------------------------------


def test_a_key_signs_a_browser_in_until_it_signs_out(server: Server) -> None:
    answer = send(server, "POST", SESSIONS, {"key": server.key}, key=None)
    assert answer.status == 200, answer.body
    _, *flags = answer.headers["set-cookie"].split("; ")
    assert flags == ["Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Strict"]
    assert server.key not in str(answer.headers)
    cookie = cookie_of(answer)
    current = by_cookie(server, "GET", CURRENT, cookie=cookie)
    assert (current.status, current.json) == (200, answer.json)
    assert set(answer.json) == {"object", "key_id", "key_name", "project", "expires_at"}
    listed = by_cookie(server, "GET", KEYS, cookie=cookie)
    assert answer.json["key_id"] in [key["id"] for key in listed.json["data"]]
    assert listed.headers["cache-control"] == "no-store"
    left = by_cookie(server, "DELETE", CURRENT, cookie=cookie, origin=server.url)
    assert left.status == 200
    assert "Max-Age=0" in left.headers["set-cookie"]
    for path in (CURRENT, KEYS):
        assert by_cookie(server, "GET", path, cookie=cookie).status == 401


def test_without_a_cookie_one_is_signed_out(server: Server) -> None:
    for key in (None, ""):
        assert send(server, "GET", CURRENT, key=key).status == 401
    assert by_cookie(server, "GET", CURRENT, cookie="a=b; stillroom=x").status == 401


def test_a_printed_address_signs_in_once(server: Server) -> None:
    found = ADDRESS.search(server.cli("portal").stdout)
    assert found
    assert found[1] == server.url
    first, second = (send(server, "POST", SESSIONS, {"token": found[2]}, key=None) for _ in range(2))
    assert first.status == 200
    assert by_cookie(server, "GET", KEYS, cookie=cookie_of(first)).status == 200
    assert second.status == 401
    assert "stillroom portal" in second.error["message"]
    assert "set-cookie" not in second.headers


def test_the_browser_that_is_opened_is_given_the_token_where_no_other_user_sees_it(
    server: Server, tmp_path: Path
) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {opened}.draft && mv {opened}.draft {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "stillroom", "portal", "--open", "--data", str(server.data)]
    environment = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        wait_for(opened.exists, pause=0.02)
        arguments = opened.read_text().strip()
        page = Path(urlsplit(arguments).path)
        seen = page.read_text(), stat.S_IMODE(page.stat().st_mode), stat.S_IMODE(page.parent.stat().st_mode)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0].decode()
    printed = ADDRESS.search(said)
    assert printed
    assert printed[2] not in arguments
    assert printed[0].strip() in seen[0]
    assert seen[1:] == (0o600, 0o700)
    assert not page.parent.exists()
    assert send(server, "POST", SESSIONS, {"token": printed[2]}, key=None).status == 200


def test_of_many_who_use_a_token_at_once_one_is_signed_in(server: Server) -> None:
    token = send(server, "POST", "/v1/stillroom/sign_in_tokens").json["token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(server, "POST", SESSIONS, {"token": token}, key=None), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 7


@needs_build
def test_the_address_that_serve_prints_signs_in_and_is_in_no_log(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    command = [sys.executable, "-m", "stillroom", "serve", "--data", str(server.data), "--port", "0"]
    with (tmp_path / "log").open("w") as log:
        server.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=tmp_path)
    assert server.process.stdout is not None
    with server:
        said = ""
        while not (found := ADDRESS.search(said)):
            line = server.process.stdout.readline().decode()
            assert line, said
            said += line
        server.url = found[1]
        answer = send(server, "POST", SESSIONS, {"token": found[2]}, key=None)
        assert answer.json["key_name"] == "admin"
    server.process.stdout.close()
    kept = [(tmp_path / "log"), *(path for path in server.data.rglob("*") if path.is_file())]
    assert not any(found[2].encode() in path.read_bytes() for path in kept)


def test_a_session_outlives_the_server_and_a_token_does_not(own: Server) -> None:
    cookie = sign_in(own)
    token = send(own, "POST", "/v1/stillroom/sign_in_tokens").json["token"]
    port = urlsplit(own.url).port
    own.stop()
    own.start(port=port or 0)
    assert by_cookie(own, "GET", CURRENT, cookie=cookie).status == 200
    assert send(own, "POST", SESSIONS, {"token": token}, key=None).status == 401


def test_a_session_ends_with_its_key(server: Server) -> None:
    made = send(server, "POST", KEYS, {"name": "browser"}).json
    cookie, other = sign_in(server, made["key"]), sign_in(server)
    assert by_cookie(server, "GET", CURRENT, cookie=cookie).json["key_name"] == "browser"
    assert send(server, "DELETE", f"{KEYS}/{made['id']}").status == 200
    assert by_cookie(server, "GET", KEYS, cookie=cookie).status == 401
    assert by_cookie(server, "GET", KEYS, cookie=other).status == 200


def test_signing_in_again_ends_the_browsers_session_before(server: Server) -> None:
    old, others = sign_in(server), sign_in(server)
    again = send(server, "POST", SESSIONS, {"key": server.key}, key=None, cookie=old, origin=server.url)
    assert by_cookie(server, "GET", CURRENT, cookie=cookie_of(again)).status == 200
    assert by_cookie(server, "GET", CURRENT, cookie=old).status == 401
    assert by_cookie(server, "GET", CURRENT, cookie=others).status == 200
    refused = send(server, "POST", SESSIONS, {"key": "sk-wrong"}, key=None, cookie=others, origin=server.url)
    assert refused.status == 401
    assert by_cookie(server, "GET", CURRENT, cookie=others).status == 200


def test_a_cookie_of_the_same_name_from_elsewhere_does_not_hide_the_session(server: Server) -> None:
    cookie = sign_in(server)
    both = f"{cookie.partition('=')[0]}=planted; {cookie}"
    for path in (CURRENT, KEYS):
        assert by_cookie(server, "GET", path, cookie=both).status == 200
    assert by_cookie(server, "DELETE", CURRENT, cookie=both, origin=server.url).status == 200
    assert by_cookie(server, "GET", CURRENT, cookie=cookie).status == 401


def test_two_servers_on_one_host_do_not_sign_each_other_out(server: Server, own: Server) -> None:
    both = f"{sign_in(server)}; {sign_in(own)}"
    for each in (server, own):
        assert by_cookie(each, "GET", CURRENT, cookie=both).status == 200
    names = {part.partition("=")[0] for part in both.split("; ")}
    assert len(names) == 2


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", {}, {"key": 5}, {"token": None}, {"key": "a", "token": "b"}, {"name": "a"}, b"\xff"]
)
def test_a_sign_in_that_makes_no_sense_is_refused(server: Server, body: Any) -> None:
    answer = send(server, "POST", SESSIONS, body, key=None)
    assert answer.status == 400
    assert answer.error["message"]


@pytest.mark.parametrize("wrong", [{"key": "sk-wrong"}, {"key": ""}, {"key": "\0"}, {"token": "x"}, {"token": ""}])
def test_a_wrong_key_or_token_signs_nobody_in(server: Server, wrong: dict[str, str]) -> None:
    answer = send(server, "POST", SESSIONS, wrong, key=None)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


def test_strangers_may_not_send_more_than_a_key_takes(server: Server) -> None:
    assert send(server, "POST", SESSIONS, {"key": "k" * 20_000}, key=None).status == 413


# --- whose requests may use the cookie ------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "http://localhost:1",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "",
        "http://[",
    ],
)
def test_a_write_that_no_page_of_ours_made_is_refused(server: Server, origin: str | None) -> None:
    cookie = sign_in(server)
    headers = {} if origin is None else {"origin": origin}
    before = len(send(server, "GET", KEYS).json["data"])
    refused = by_cookie(server, "POST", KEYS, {"name": "theirs"}, cookie=cookie, **headers)
    assert (refused.status, refused.error["code"]) == (403, "foreign_origin")
    assert "key" in refused.error["message"]
    assert len(send(server, "GET", KEYS).json["data"]) == before
    allowed = by_cookie(server, "POST", KEYS, {"name": "ours"}, cookie=cookie, origin=server.url)
    assert allowed.status == 200
    send(server, "DELETE", f"{KEYS}/{allowed.json['id']}")


def test_deleting_and_signing_out_need_the_origin_too(server: Server) -> None:
    cookie = sign_in(server)
    made = send(server, "POST", KEYS, {"name": "kept"}).json["id"]
    for method, path in (("DELETE", f"{KEYS}/{made}"), ("DELETE", CURRENT), ("PUT", "/v1/stillroom/budget")):
        assert by_cookie(server, method, path, cookie=cookie, origin="http://evil.example").status == 403
    assert by_cookie(server, "GET", CURRENT, cookie=cookie).status == 200
    assert by_cookie(server, "DELETE", f"{KEYS}/{made}", cookie=cookie, origin=server.url).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_a_read_by_another_sites_page_is_refused(server: Server, site: str) -> None:
    cookie = sign_in(server)
    for path in (KEYS, CURRENT):
        refused = by_cookie(server, "GET", path, cookie=cookie, sec_fetch_site=site)
        assert (refused.status, refused.error["code"]) == (403, "foreign_origin")
        for own_site in ("same-origin", "none"):
            assert by_cookie(server, "GET", path, cookie=cookie, sec_fetch_site=own_site).status == 200
    written = by_cookie(server, "POST", KEYS, {"name": "a"}, cookie=cookie, origin=server.url, sec_fetch_site=site)
    assert written.status == 403


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}])
def test_a_foreign_page_cannot_sign_its_own_user_in(server: Server, headers: dict[str, str]) -> None:
    answer = send(server, "POST", SESSIONS, {"key": server.key}, key=None, **headers)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    ours = send(
        server, "POST", SESSIONS, {"key": server.key}, key=None, origin=server.url, sec_fetch_site="same-origin"
    )
    assert ours.status == 200


def test_a_name_that_is_made_to_point_here_has_no_cookie_and_gets_nothing(server: Server) -> None:
    """DNS rebinding: the page's origin and the Host header agree, and are an attacker's."""
    rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec_fetch_site": "same-origin"}
    assert send(server, "GET", KEYS, key=None, **rebound).status == 401
    assert send(server, "POST", KEYS, {"name": "a"}, key=None, **rebound).status == 401


def test_behind_a_proxy_that_ends_tls_the_browsers_https_origin_is_ours(server: Server) -> None:
    proxied = {"host": "still.example", "origin": "https://still.example"}
    answer = send(server, "POST", SESSIONS, {"key": server.key}, key=None, **proxied)
    assert answer.headers["set-cookie"].endswith("; Secure")
    made = by_cookie(server, "POST", "/v1/stillroom/sign_in_tokens", cookie=cookie_of(answer), **proxied)
    assert made.status == 200
    rewritten = {**proxied, "host": "internal.example"}
    refused = by_cookie(server, "POST", "/v1/stillroom/sign_in_tokens", cookie=cookie_of(answer), **rewritten)
    assert refused.status == 403
    assert "proxy" in refused.error["message"]


def test_over_tls_the_cookie_is_secure_and_a_plain_origin_is_foreign(server: Server) -> None:
    assert server.tls_url
    context = ssl.create_default_context(cafile=server.ca)

    def ask(path: str, body: Any, **headers: str) -> tuple[int, Any]:
        request = Request(f"{server.tls_url}{path}", json.dumps(body).encode(), headers, method="POST")
        try:
            with urlopen(request, context=context, timeout=30) as answer:
                return answer.status, answer.headers
        except HTTPError as error:
            with error:
                return error.code, error.headers

    _, headers = ask(SESSIONS, {"key": server.key})
    assert headers["set-cookie"].endswith("; SameSite=Strict; Secure")
    cookie = headers["set-cookie"].partition(";")[0]
    path = "/v1/stillroom/sign_in_tokens"
    assert ask(path, {}, Cookie=cookie, Origin=server.tls_url)[0] == 200
    assert ask(path, {}, Cookie=cookie, Origin=server.tls_url.replace("https", "http"))[0] == 403


def test_a_key_in_a_header_wins_and_needs_no_origin(server: Server) -> None:
    for cookie in (sign_in(server), "stale=x"):
        headers = {"cookie": cookie, "origin": "http://evil.example", "sec_fetch_site": "cross-site"}
        assert send(server, "POST", "/v1/stillroom/sign_in_tokens", {}, **headers).status == 200
        assert send(server, "GET", KEYS, key="sk-wrong", **headers).status == 401


def test_the_cookie_opens_every_part_of_the_api_but_makes_no_identity_token(server: Server) -> None:
    cookie = sign_in(server)
    arm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"
    for path in ("/v1/models", "/openai/v1/models", f"{arm}?api-version=2024-10-01"):
        assert by_cookie(server, "GET", path, cookie=cookie).status == 200
    missing = by_cookie(server, "GET", "/v1/stillroom/evals/eval_x/report?format=html", cookie=cookie)
    assert missing.status == 404
    assert by_cookie(server, "GET", "/msi/token?resource=x", cookie=cookie).status == 401


def test_a_long_list_goes_to_a_browser_compressed(server: Server) -> None:
    made = chat(server, "a word " * 2000, store=True).json["id"]
    path = f"/v1/chat/completions/{made}"
    plain, packed = (
        by_cookie(server, "GET", path, cookie=sign_in(server), accept_encoding=coding) for coding in ("br", "gzip, br")
    )
    assert "content-encoding" not in plain.headers
    assert (packed.headers["content-encoding"], packed.headers["content-type"]) == ("gzip", "application/json")
    assert len(packed.body) < len(plain.body) / 10
    assert json.loads(gzip.decompress(packed.body)) == plain.json
    assert "content-encoding" not in send(server, "GET", path, accept_encoding="gzip").headers


def test_a_stream_for_the_playground_is_counted_as_the_keys(server: Server) -> None:
    cookie = sign_in(server)
    answer = by_cookie(
        server, "POST", "/v1/chat/completions", question("hi there", stream=True), cookie=cookie, origin=server.url
    )
    assert payloads(answer.body)[-1] == "[DONE]"
    key = by_cookie(server, "GET", CURRENT, cookie=cookie).json["key_id"]
    chat(server, "by the key itself")
    by_key = wait_for(lambda: send(server, "GET", "/v1/stillroom/usage?group_by=key").json["data"])
    assert key in json.dumps(by_key)


# --- the portal's files ---------------------------------------------------------------------------------


@needs_build
def test_the_portal_comes_with_a_policy_that_lets_nothing_foreign_in(server: Server) -> None:
    page = send(server, "GET", "/", key=None, **BROWSER)
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    document = gzip.decompress(page.body).decode() if "content-encoding" in page.headers else page.body.decode()
    (script,) = re.findall(r'<script[^>]* src="(/assets/[^"]+\.js)"', document)
    asset = send(server, "GET", script, key=None, accept_encoding="gzip")
    assert asset.headers["content-type"].startswith("text/javascript")
    assert asset.headers["cache-control"].endswith("immutable")
    assert gzip.decompress(asset.body)
    head = send(server, "HEAD", script, key=None, accept_encoding="gzip")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", asset.headers["content-length"])
    again = send(server, "GET", "/jobs/ftjob-1", key=None, **BROWSER, if_none_match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@needs_build
def test_paths_that_are_no_page_are_told_as_before(server: Server) -> None:
    assert send(server, "GET", "/chat/completions", key=None, **BROWSER).status == 200
    for method, headers in (("GET", {"accept": "application/json"}), ("GET", {}), ("POST", BROWSER)):
        answer = send(server, method, "/chat/completions", key=None, **headers)
        assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert send(server, "GET", "/v1/typo", key=None, **BROWSER).status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/assets/../../__init__.py",
        "/assets/%2e%2e/%2e%2e/__init__.py",
        "/assets/..%2f..%2f__init__.py",
        "/%2e%2e%2f__init__.py",
        "/assets/..%5c..%5c__init__.py",
        "/assets//etc/passwd",
        "/%2fetc%2fpasswd",
        "/assets/index.js%00.css",
        "/assets/unknown-Abc123.js",
        "/.sources",
    ],
)
def test_no_path_leads_out_of_the_portal(server: Server, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert send(server, method, path, key=None).status == 404
    assert b"import" not in send(server, "GET", path, key=None, accept="text/html").body[:2000]
