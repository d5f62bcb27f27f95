"""Azure's dialect: where its paths lead, and which api-versions it has had."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stillroom.api.errors import UnknownPath, UnsupportedApiVersion
from stillroom.api.wire import Dialect, Location

API_VERSION = re.compile(r"20[2-9]\d-\d\d-\d\d(-preview)?|v1|preview|latest")


def locate(segments: tuple[str, ...]) -> Location | None:
    """Strips `/openai`, `/v1` and `/deployments/{name}`, in every mix official clients make of them.

    None when the path belongs to neither dialect.
    """
    rest = list(segments)
    azure = bool(rest) and rest[0] == "openai"
    if azure:
        rest.pop(0)
    versioned = bool(rest) and rest[0] == "v1"
    if versioned:
        rest.pop(0)
    if not azure and not versioned:
        return None
    deployment = None
    if len(rest) >= 2 and rest[0] == "deployments":
        deployment = rest[1]
        rest = rest[2:]
    dialect = Dialect.AZURE if azure else Dialect.OPENAI
    return Location(dialect=dialect, segments=tuple(rest), deployment=deployment, versioned=versioned)


def check_version(location: Location, query: Mapping[str, str]) -> None:
    """Raises as Azure does when the api-version is missing or none it knows."""
    if location.dialect is not Dialect.AZURE:
        return
    version = query.get("api-version")
    if version is None and location.versioned:
        return
    if version is None:
        raise UnknownPath("Resource not found")
    if not API_VERSION.fullmatch(version):
        raise UnsupportedApiVersion("API version not supported")
