"""Sessions act as their key, end with it, and are kept as hashes; a token begins one session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from stillroom.assembly import Platform, open_platform
from stillroom.auth import Keys, Principal, Sessions
from stillroom.auth.sessions import SESSION_SECONDS, TOKENS_OF_A_KEY
from stillroom.clock import Clock
from stillroom.config import Settings
from stillroom.errors import AuthenticationFailed


class MovedClock(Clock):
    """A clock that is ahead by as much as it was told."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def platform(tmp_path: Path, clock: MovedClock) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def principal(platform: Platform) -> Principal:
    _, secret = platform.keys.create(1, "app")
    return platform.keys.check(secret)


def test_a_session_acts_as_the_key_it_began_with(platform: Platform, principal: Principal) -> None:
    begun, secret = platform.sessions.begin(principal)
    found = platform.sessions.check(secret)
    assert found == begun == platform.sessions.remembered(secret)
    assert (found.principal, found.key_name) == (principal, "app")
    for wrong in ("", secret[:-1], secret + "x", "' OR '1'='1", "\ud800"):
        assert platform.sessions.remembered(wrong) is None
        with pytest.raises(AuthenticationFailed):
            platform.sessions.check(wrong)


def test_a_sessions_secret_is_no_key(platform: Platform, principal: Principal) -> None:
    _, secret = platform.sessions.begin(principal)
    platform.sessions.check(secret)
    assert platform.keys.remembered(secret) is None
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(secret)


def test_a_sessions_secret_and_a_token_are_nowhere_in_the_data_folder(platform: Platform, principal: Principal) -> None:
    token, _ = platform.sign_in_tokens.mint(principal, 60)
    _, secret = platform.sessions.begin(platform.sign_in_tokens.redeem(token))
    platform.sessions.check(secret)
    contents = [path.read_bytes() for path in platform.settings.folder.rglob("*") if path.is_file()]
    assert any(principal.key_id.encode() in content for content in contents)
    assert not any(hidden.encode() in content for content in contents for hidden in (secret, token))


def test_a_session_ends_with_its_key_at_once(platform: Platform, principal: Principal) -> None:
    _, secret = platform.sessions.begin(principal)
    other, _ = platform.keys.create(1, "other")
    platform.keys.revoke(1, other.id)
    assert platform.sessions.check(secret)
    assert platform.sessions.remembered(secret)
    platform.keys.revoke(1, principal.key_id)
    assert platform.sessions.remembered(secret) is None
    with pytest.raises(AuthenticationFailed):
        platform.sessions.check(secret)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        platform.sessions.begin(principal)


def test_a_session_ends_when_it_is_signed_out_and_no_other_does(platform: Platform, principal: Principal) -> None:
    (_, first), (_, second) = platform.sessions.begin(principal), platform.sessions.begin(principal)
    assert platform.sessions.check(first)
    platform.sessions.end(first)
    platform.sessions.end(first)
    assert platform.sessions.remembered(first) is None
    with pytest.raises(AuthenticationFailed):
        platform.sessions.check(first)
    assert platform.sessions.check(second)


class SlowKeys(Keys):
    """Keys that somebody signs out in the middle of being asked."""

    meanwhile: Callable[[], None] | None = None

    def name_of_live(self, connection: Connection, principal: Principal) -> str | None:
        name = super().name_of_live(connection, principal)
        if self.meanwhile is not None:
            self.meanwhile()
        return name


def test_a_session_that_is_signed_out_while_it_is_looked_up_is_not_remembered(
    platform: Platform, principal: Principal, clock: MovedClock
) -> None:
    keys = SlowKeys(platform.database, platform.writer)
    sessions = Sessions(platform.database, platform.writer, keys, clock)
    _, secret = sessions.begin(principal)
    keys.meanwhile = lambda: sessions.end(secret)
    assert sessions.check(secret)  # it was live when it was read
    assert sessions.remembered(secret) is None


def test_a_session_lasts_thirty_days(platform: Platform, principal: Principal, clock: MovedClock) -> None:
    session, secret = platform.sessions.begin(principal)
    assert abs(session.expires_at - clock.now() - SESSION_SECONDS) < 60
    clock.ahead = SESSION_SECONDS - 60
    assert platform.sessions.check(secret)
    clock.ahead = SESSION_SECONDS + 60
    with pytest.raises(AuthenticationFailed, match="expired"):
        platform.sessions.check(secret)
    assert platform.sessions.remembered(secret) is None


def test_a_key_lent_to_a_job_signs_nobody_in(platform: Platform, principal: Principal) -> None:
    lent = platform.keys.check(platform.keys.lend(1, principal.key_id, "evalrun_1"))
    with pytest.raises(AuthenticationFailed, match="job"):
        platform.sessions.begin(lent)


def test_a_token_expires_unused(platform: Platform, principal: Principal, clock: MovedClock) -> None:
    early, late = (platform.sign_in_tokens.mint(principal, seconds)[0] for seconds in (600, 6000))
    clock.ahead = 601
    with pytest.raises(AuthenticationFailed, match="stillroom portal"):
        platform.sign_in_tokens.redeem(early)
    assert platform.sign_in_tokens.redeem(late) == principal


def test_of_a_keys_many_tokens_the_newest_wait_and_other_keys_are_none_the_worse(
    platform: Platform, principal: Principal
) -> None:
    others, _ = platform.sign_in_tokens.mint(Principal(project=1, key_id="another"), 60)
    first, second, *_, last = (platform.sign_in_tokens.mint(principal, 60)[0] for _ in range(TOKENS_OF_A_KEY + 1))
    with pytest.raises(AuthenticationFailed):
        platform.sign_in_tokens.redeem(first)
    for token in (second, last):
        assert platform.sign_in_tokens.redeem(token) == principal
    assert platform.sign_in_tokens.redeem(others).key_id == "another"
