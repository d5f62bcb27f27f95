"""Keys are shown once, kept as hashes, and end when they are revoked."""

from __future__ import annotations

import stat

import pytest

from stillroom.assembly import Platform, ensure_admin_key
from stillroom.auth import REMEMBERED_SECONDS
from stillroom.errors import AuthenticationFailed, NotFound


def test_a_key_opens_its_project_and_nothing_else_does(platform: Platform) -> None:
    key, secret = platform.keys.create(1, "app")
    principal = platform.keys.check(secret)
    assert (principal.project, principal.key_id) == (1, key.id)
    for wrong in (None, "", secret[:-1], secret + "x", "' OR '1'='1", "\ud800"):
        with pytest.raises(AuthenticationFailed):
            platform.keys.check(wrong)


def test_the_secret_is_nowhere_in_the_data_folder(platform: Platform) -> None:
    _, secret = platform.keys.create(1, "app")
    platform.keys.check(secret)
    platform.writer.write(lambda connection: None)
    for path in platform.settings.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_a_refusal_never_repeats_the_key(platform: Platform) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        platform.keys.check("sk-very-secret-key")
    assert "very" not in caught.value.message


def test_a_revoked_key_ends_at_once(platform: Platform) -> None:
    key, secret = platform.keys.create(1, "app")
    assert platform.keys.check(secret)
    assert platform.keys.remembered(secret)
    platform.keys.revoke(1, key.id)
    assert platform.keys.remembered(secret) is None
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(secret)
    assert REMEMBERED_SECONDS < 60


def test_another_projects_key_cannot_be_revoked(platform: Platform) -> None:
    key, secret = platform.keys.create(1, "app")
    with pytest.raises(NotFound):
        platform.keys.revoke(2, key.id)
    assert platform.keys.check(secret)


def test_the_admin_key_is_made_once_and_only_its_owner_can_read_it(platform: Platform) -> None:
    secret = ensure_admin_key(platform)
    path = platform.settings.folder / "admin-key"
    assert secret is not None
    assert path.read_text().strip() == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_admin_key(platform) is None


def test_a_lent_key_acts_as_its_owners_and_is_in_no_list(platform: Platform) -> None:
    owner, _ = platform.keys.create(1, "app")
    listed = platform.keys.of_project(1)
    lent = platform.keys.lend(1, owner.id, "evalrun_1")
    principal = platform.keys.check(lent)
    assert (principal.project, principal.key_id) == (1, owner.id)
    assert platform.keys.of_project(1) == listed
    platform.keys.take_back("evalrun_1")
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(lent)


def test_a_key_lent_again_ends_the_one_before_which_cannot_end_it_in_turn(platform: Platform) -> None:
    owner, secret = platform.keys.create(1, "app")
    first, second = (platform.keys.lend(1, owner.id, "evalrun_1") for _ in range(2))
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(first)
    platform.keys.take_back("evalrun_1", first)
    assert platform.keys.check(second).key_id == owner.id
    platform.keys.take_back("evalrun_1", second)
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(second)
    assert platform.keys.check(secret).key_id == owner.id


def test_a_key_lent_to_a_job_ends_with_its_owners(platform: Platform) -> None:
    owner, _ = platform.keys.create(1, "app")
    lent = platform.keys.lend(1, owner.id, "evalrun_1")
    assert platform.keys.check(lent).key_id == owner.id
    platform.keys.revoke(1, owner.id)
    with pytest.raises(AuthenticationFailed):
        platform.keys.check(lent)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        platform.keys.lend(1, owner.id, "evalrun_2")
