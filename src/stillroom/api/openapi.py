"""This API's own description, as an OpenAPI document made from the table of routes.

Operations that OpenAI or Azure define are listed with a pointer to whose they are, for their bodies
are described there; stillroom's own have their bodies described here.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from stillroom import __version__, fine_tuning
from stillroom.api import bulk_actions, comparisons, costs, exports, extensions, preferences, quotes, routes, sign_in
from stillroom.api.routes import Route
from stillroom.api.wire import Call, Reply

OPENAI = "OpenAI's API, on /v1; the same below /openai for Azure's SDKs"
AZURE = "Azure's resource manager"
IDENTITY = "Azure's managed identity"
OWN = "stillroom's own"
BODIES: dict[str, type[Any]] = {
    "stillroom/comparisons": comparisons.ComparisonRequest,
    "stillroom/selections": extensions.SelectionRequest,
    "stillroom/preferences": preferences.PreferencesRequest,
    "stillroom/completions/bulk": bulk_actions.BulkRequest,
    "stillroom/completions/export": bulk_actions.ExportRequest,
    "stillroom/keys": extensions.KeyRequest,
    "stillroom/models/{model}/exports": exports.ExportOrder,
    "stillroom/quotes": quotes.QuoteRequest,
    "stillroom/sessions": sign_in.SignInRequest,
    "stillroom/budget": costs.BudgetRequest,
}
PARAMETER = re.compile(r"\{(\w+)\}")


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of every operation."""
    described = [*BODIES.values(), fine_tuning.Hyperparameters]
    _, schemas = msgspec.json.schema_components(described, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for prefix, table, whose in groups():
        for route in table:
            paths.setdefault(f"{prefix}/{route.path}", {})[route.method.lower()] = _operation(route, whose)
    return {
        "openapi": "3.1.0",
        "info": {"title": "stillroom", "version": __version__},
        "security": [{"bearer": []}, {"api-key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def groups() -> tuple[tuple[str, tuple[Route, ...], str], ...]:
    """Where each table of routes hangs, and whose API it is."""
    chat = Route("POST", "/".join(routes.CHAT), _create_chat_completion)
    return (
        ("/v1", (chat, *routes.BOTH_DIALECTS), OPENAI),
        ("/v1", routes.OWN, OWN),
        ("", routes.ARM, AZURE),
        ("", routes.IDENTITY, IDENTITY),
    )


def describe(call: Call) -> Reply:
    """Describe this API as an OpenAPI document."""
    return Reply(body=document())


def summary(route: Route) -> str:
    """The operation's line: the first of its handler's docstring."""
    return (inspect.getdoc(route.handler) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")


def _create_chat_completion(call: Call) -> Reply:
    """Answer a chat completion through a deployment, a teacher or a student; `store: true` keeps it."""
    raise AssertionError("chat completions have their own way in")


def _operation(route: Route, whose: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary(route),
        "tags": [whose],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in PARAMETER.findall(route.path)
        ],
        "responses": {"200": {"description": "Success"}, "default": {"description": "An error in the dialect's form"}},
    }
    if route.path == "/".join(routes.SIGN_IN):
        found["security"] = []
    if route.path in BODIES and route.method in ("POST", "PUT"):
        schema = {"$ref": f"#/components/schemas/{BODIES[route.path].__name__}"}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found
