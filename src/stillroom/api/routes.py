"""Every operation of the API: method, path, handler. Both dialects share the first table.

A path's `{name}` takes one segment. Handlers that are plain functions run in a thread; their
docstring is the operation's line in the reference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from stillroom.api import (
    arm,
    bulk_actions,
    catalogue,
    comparisons,
    completions,
    costs,
    deployments,
    evals,
    exports,
    extensions,
    files,
    fine_tuning,
    graders,
    hyperparameters,
    identity,
    jobs,
    models,
    overview,
    preferences,
    quotes,
    sign_in,
    stored_completions,
    teachers,
)
from stillroom.api.errors import UnknownPath, WrongMethod
from stillroom.api.wire import Call, Reply
from stillroom.errors import shortened

Handler = Callable[[Call], Reply] | Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True)
class Route:
    """One operation. `raw`: the handler reads the body itself, as it comes."""

    method: str
    path: str
    handler: Handler
    raw: bool = False

    @cached_property
    def pattern(self) -> tuple[str, ...]:
        """The path's segments; ARM's paths are case-insensitive, so all are."""
        return tuple(part if part.startswith("{") else part.lower() for part in self.path.split("/"))


CHAT = ("chat", "completions")
SIGN_IN = ("stillroom", "sessions")  # a POST there needs no key

BOTH_DIALECTS = (
    Route("GET", "chat/completions", stored_completions.list_completions),
    Route("GET", "chat/completions/{id}", stored_completions.retrieve),
    Route("POST", "chat/completions/{id}", stored_completions.update),
    Route("DELETE", "chat/completions/{id}", stored_completions.delete),
    Route("GET", "chat/completions/{id}/messages", stored_completions.list_messages),
    Route("POST", "files", files.create, raw=True),
    Route("GET", "files", files.list_files),
    Route("GET", "files/{id}", files.retrieve),
    Route("DELETE", "files/{id}", files.delete),
    Route("GET", "files/{id}/content", files.content),
    Route("POST", "fine_tuning/jobs", fine_tuning.create),
    Route("GET", "fine_tuning/jobs", fine_tuning.list_jobs),
    Route("GET", "fine_tuning/jobs/{id}", fine_tuning.retrieve),
    Route("GET", "fine_tuning/jobs/{id}/events", fine_tuning.list_events),
    Route("GET", "fine_tuning/jobs/{id}/checkpoints", fine_tuning.list_checkpoints),
    Route("POST", "fine_tuning/jobs/{id}/cancel", fine_tuning.cancel),
    Route("POST", "fine_tuning/jobs/{id}/pause", fine_tuning.pause),
    Route("POST", "fine_tuning/jobs/{id}/resume", fine_tuning.resume),
    Route("POST", "fine_tuning/alpha/graders/run", graders.run),
    Route("POST", "fine_tuning/alpha/graders/validate", graders.validate),
    Route("POST", "evals", evals.create),
    Route("GET", "evals", evals.list_evals),
    Route("GET", "evals/{id}", evals.retrieve),
    Route("POST", "evals/{id}", evals.update),
    Route("DELETE", "evals/{id}", evals.delete),
    Route("POST", "evals/{id}/runs", evals.create_run),
    Route("GET", "evals/{id}/runs", evals.list_runs),
    Route("GET", "evals/{id}/runs/{run}", evals.retrieve_run),
    # SDKs before September 2026, and OpenAI's specification, cancel here.
    Route("POST", "evals/{id}/runs/{run}", evals.cancel_run),
    Route("POST", "evals/{id}/runs/{run}/cancel", evals.cancel_run),
    Route("DELETE", "evals/{id}/runs/{run}", evals.delete_run),
    Route("GET", "evals/{id}/runs/{run}/output_items", evals.list_output_items),
    Route("GET", "evals/{id}/runs/{run}/output_items/{item}", evals.retrieve_output_item),
    Route("GET", "models", models.list_models),
    Route("GET", "models/{model}", models.retrieve),
    Route("DELETE", "models/{model}", models.delete),
)

OWN = (
    Route("POST", "stillroom/comparisons", comparisons.compare),
    Route("GET", "stillroom/evals/{id}/report", comparisons.show_report),
    Route("POST", "stillroom/selections", extensions.select),
    Route("GET", "stillroom/files/{id}/report", extensions.show_report),
    Route("POST", "stillroom/preferences", preferences.create),
    Route("GET", "stillroom/completions", completions.list_completions),
    Route("GET", "stillroom/completions/count", completions.count),
    Route("GET", "stillroom/completions/facets", completions.facets),
    Route("POST", "stillroom/completions/bulk", bulk_actions.create),
    Route("GET", "stillroom/completions/export", bulk_actions.export),
    Route("POST", "stillroom/completions/export", bulk_actions.export_chosen),
    Route("GET", "stillroom/completions/{id}", completions.retrieve),
    Route("GET", "stillroom/bulk_actions", bulk_actions.list_actions),
    Route("GET", "stillroom/bulk_actions/{id}", bulk_actions.retrieve),
    Route("POST", "stillroom/bulk_actions/{id}/cancel", bulk_actions.cancel),
    Route("POST", "stillroom/quotes", quotes.create),
    Route("GET", "stillroom/quotes/{id}", quotes.retrieve),
    Route("GET", "stillroom/jobs", jobs.list_jobs),
    Route("GET", "stillroom/jobs/{id}", jobs.retrieve),
    Route("GET", "stillroom/jobs/{id}/metrics", jobs.metrics),
    Route("GET", "stillroom/jobs/{id}/quote", quotes.compare),
    Route("GET", "stillroom/hyperparameters", hyperparameters.resolved),
    Route("GET", "stillroom/deployments", deployments.list_deployments),
    Route("GET", "stillroom/models", catalogue.list_models),
    Route("GET", "stillroom/teachers", teachers.list_teachers),
    Route("POST", "stillroom/teachers/{name}/probe", teachers.probe),
    Route("POST", "stillroom/models/{model}/exports", exports.create),
    Route("GET", "stillroom/exports", exports.list_exports),
    Route("GET", "stillroom/exports/{id}", exports.retrieve),
    Route("GET", "stillroom/exports/{id}/content", exports.content),
    Route("DELETE", "stillroom/exports/{id}", exports.delete),
    Route("GET", "stillroom/overview", overview.show),
    Route("GET", "stillroom/break-even", quotes.break_even),
    Route("POST", "stillroom/keys", extensions.create_key),
    Route("GET", "stillroom/keys", extensions.list_keys),
    Route("DELETE", "stillroom/keys/{id}", extensions.revoke_key),
    Route("POST", "stillroom/sessions", sign_in.create),
    Route("GET", "stillroom/sessions/current", sign_in.current),
    Route("DELETE", "stillroom/sessions/current", sign_in.end),
    Route("POST", "stillroom/sign_in_tokens", sign_in.create_token),
    Route("GET", "stillroom/usage", costs.usage),
    Route("GET", "stillroom/prices", costs.prices),
    Route("GET", "stillroom/budget", costs.get_budget),
    Route("PUT", "stillroom/budget", costs.put_budget),
    Route("DELETE", "stillroom/budget", costs.delete_budget),
)

_PROVIDER = "subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.CognitiveServices"
_ACCOUNT = f"{_PROVIDER}/accounts/{{account}}"
_LOCATION = "subscriptions/{subscription}/providers/Microsoft.CognitiveServices/locations/{location}"

ARM = (
    Route("PUT", f"{_ACCOUNT}/deployments/{{deployment}}", arm.put_deployment),
    Route("GET", f"{_ACCOUNT}/deployments/{{deployment}}", arm.get_deployment),
    Route("PATCH", f"{_ACCOUNT}/deployments/{{deployment}}", arm.patch_deployment),
    Route("DELETE", f"{_ACCOUNT}/deployments/{{deployment}}", arm.delete_deployment),
    Route("GET", f"{_ACCOUNT}/deployments", arm.list_deployments),
    Route("GET", _ACCOUNT, arm.get_account),
    Route("POST", f"{_ACCOUNT}/listKeys", arm.list_keys),
    Route("GET", f"{_ACCOUNT}/models", arm.list_models),
    Route("GET", f"{_ACCOUNT}/usages", arm.list_usages),
    Route("GET", f"{_LOCATION}/models", arm.list_location_models),
    Route("GET", f"{_LOCATION}/usages", arm.list_usages),
)

IDENTITY = (Route("GET", "msi/token", identity.token),)


def find(
    routes: tuple[Route, ...], method: str, segments: tuple[str, ...], path: str
) -> tuple[Route, Mapping[str, str]]:
    """The operation and its path's parameters. Raises UnknownPath, or WrongMethod,
    naming the path as the caller wrote it."""
    known = False
    lowered = tuple(segment.lower() for segment in segments)
    for route in routes:
        if len(route.pattern) != len(segments):
            continue
        parameters = _match(route.pattern, segments, lowered)
        if parameters is None:
            continue
        if route.method == method:
            return route, parameters
        known = True
    if known:
        raise WrongMethod(f"Not allowed to {method} on {shortened(path)}.")
    raise UnknownPath(f"Unknown request URL: {method} {shortened(path)}. Please check the URL for typos.")


def _match(pattern: tuple[str, ...], segments: tuple[str, ...], lowered: tuple[str, ...]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for expected, segment, low in zip(pattern, segments, lowered, strict=True):
        if expected == low:
            continue
        if not segment or not expected.startswith("{"):
            return None
        found[expected[1:-1]] = segment
    return found
