"""Signing a browser in: the routes that do, the cookie, and which requests may use it.

A browser sends a cookie whoever made the request, so a cookie alone proves nothing. It is taken when the browser
says that a page of this server asked: on writes by `Origin`, on reads by `Sec-Fetch-Site` where there is one (what
another origin's page reads is kept from it by the browser anyway). A name that an attacker lets point here has no
cookie, for cookies belong to the name they were set under; so no list of allowed names is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stillroom import bodies
from stillroom.api.errors import ForeignOrigin
from stillroom.api.wire import Call, Reply
from stillroom.auth import Principal, Session, Sessions
from stillroom.auth.sessions import SESSION_SECONDS
from stillroom.errors import AuthenticationFailed, InvalidRequest, shortened

BODY_BYTES = 16 * 1024  # of a request that anybody may send
TOKEN_SECONDS = 600
COOKIES = 10  # of our name that are tried; more come from somebody who wants them to be
READS = ("GET", "HEAD")
OWN_SITES = (None, "same-origin", "none")  # not given (an old browser, or plain HTTP), a page of ours, the address bar
PORT = re.compile(r":(\d{1,5})$")


class SignInRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `key`, or `token`: what stands behind `#signin=` in the address that `stillroom portal` prints."""

    key: str | None = None
    token: str | None = None


def create(call: Call) -> Reply:
    """Sign a browser in with a key or a one-time token: the answer sets the session's cookie. Needs no other key."""
    if "origin" in call.headers or call.headers.get("sec-fetch-site") not in OWN_SITES:
        check_origin(call.method, call.headers, call.scheme)  # else a foreign page could sign its own user in here
    session, secret = call.platform.sessions.begin(_redeemed(call))
    for replaced in cookie_secrets(call.platform.settings.folder, call.headers):
        call.platform.sessions.end(replaced)
    cookie = _cookie(call, secret, SESSION_SECONDS)
    return Reply(body=_shown(session), headers={"set-cookie": cookie, "cache-control": "no-store"})


async def current(call: Call) -> Reply:
    """Show the session that the cookie belongs to."""
    return Reply(body=_shown(await session_of(call.platform.sessions, _own_secrets(call))))


def end(call: Call) -> Reply:
    """Sign out: end the session that the cookie belongs to."""
    for secret in _own_secrets(call):
        call.platform.sessions.end(secret)
    body = {"object": "stillroom.session.deleted", "deleted": True}
    return Reply(body=body, headers={"set-cookie": _cookie(call, "", 0)})


def create_token(call: Call) -> Reply:
    """Make a one-time token that signs a browser in as this key, within ten minutes."""
    token, expires_at = call.platform.sign_in_tokens.mint(call.principal, TOKEN_SECONDS)
    body = {"object": "stillroom.sign_in_token", "token": token, "expires_at": expires_at}
    return Reply(body=body, headers={"cache-control": "no-store"})


async def session_of(sessions: Sessions, secrets: Sequence[str]) -> Session:
    """The session that one of the secrets belongs to. Raises AuthenticationFailed when none of them has one."""
    for secret in secrets:
        known = sessions.remembered(secret)
        if known is not None:
            return known
    return await asyncio.to_thread(sessions.check_any, secrets)


def cookie_secrets(folder: Path, headers: Mapping[str, str]) -> list[str]:
    """What may be a session's secret among the request's cookies; none when it has no cookie of ours.

    Other programs on this host can set a cookie of the same name for another path, which comes first.
    """
    name = _cookie_name(folder, headers)
    cookies = [cookie.strip().partition("=") for cookie in headers.get("cookie", "").split(";")]
    return [value for key, _, value in cookies if key == name and value][:COOKIES]


def check_origin(method: str, headers: Mapping[str, str], scheme: str) -> None:
    """Raises ForeignOrigin unless the request may use a cookie."""
    site, host, origin = headers.get("sec-fetch-site"), headers.get("host", ""), headers.get("origin")
    if site not in OWN_SITES:
        raise ForeignOrigin(
            f"A page of another site asked for this (Sec-Fetch-Site: {shortened(str(site))}), and sign-in cookies "
            "work for this server's own pages only. Send an API key instead."
        )
    if method in READS:
        return
    if origin is None:
        raise ForeignOrigin(
            f"A {method} with a sign-in cookie needs the Origin header that browsers send. Outside of a browser, "
            "send an API key instead."
        )
    if origin.lower() not in _own_origins(host, scheme):
        raise ForeignOrigin(
            f"A page of {shortened(origin)} asked for this, but this server is {scheme}://{shortened(host)}, and sign-in "
            "cookies work for its own pages only. Send an API key instead; a reverse proxy in between must pass on the "
            "Host header that the browser sent."
        )


def _own_origins(host: str, scheme: str) -> tuple[str, ...]:
    """How browsers write this server's origin: without the scheme's usual port."""
    host = host.lower()
    secure = f"https://{host.removesuffix(':443')}"
    # Behind a proxy that ends TLS, a request that the browser sent over it comes here as plain HTTP.
    return (secure,) if scheme == "https" else (secure, f"http://{host.removesuffix(':80')}")


def _redeemed(call: Call) -> Principal:
    asked = bodies.read(call.json(), SignInRequest)
    if (asked.key is None) == (asked.token is None):
        raise InvalidRequest("Give either 'key' or 'token'.", param="key")
    if asked.token is not None:
        return call.platform.sign_in_tokens.redeem(asked.token)
    return call.platform.keys.check(asked.key)


def _own_secrets(call: Call) -> list[str]:
    secrets = cookie_secrets(call.platform.settings.folder, call.headers)
    if not secrets:
        raise AuthenticationFailed("You are signed out: the request has no session cookie.")
    check_origin(call.method, call.headers, call.scheme)
    return secrets


def _shown(session: Session) -> dict[str, Any]:
    return {
        "object": "stillroom.session",
        "key_id": session.principal.key_id,
        "key_name": session.key_name,
        "project": session.principal.project,
        "expires_at": session.expires_at,
    }


def _cookie(call: Call, value: str, seconds: int) -> str:
    name = _cookie_name(call.platform.settings.folder, call.headers)
    over_tls = call.scheme == "https" or call.headers.get("origin", "").startswith("https://")
    secure = "; Secure" if over_tls else ""
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _cookie_name(folder: Path, headers: Mapping[str, str]) -> str:
    """A name of this installation's own: a host's ports share their cookies, and two servers take turns on a port."""
    port = PORT.search(headers.get("host", ""))
    digest = hashlib.sha256(bytes(folder)).hexdigest()
    return f"stillroom-{port[1] if port else 'web'}-{digest[:8]}"
