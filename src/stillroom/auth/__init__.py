"""Who may call: projects and their API keys (`keys`), and browsers that signed in with one (`sessions`)."""

from stillroom.auth.keys import (
    DEFAULT_PROJECT,
    NOBODY,
    REMEMBERED_SECONDS,
    ApiKey,
    Keys,
    Principal,
    ensure_default_project,
    projects,
)
from stillroom.auth.sessions import Session, Sessions, SignInTokens

__all__ = [
    "DEFAULT_PROJECT",
    "NOBODY",
    "REMEMBERED_SECONDS",
    "ApiKey",
    "Keys",
    "Principal",
    "Session",
    "Sessions",
    "SignInTokens",
    "ensure_default_project",
    "projects",
]
