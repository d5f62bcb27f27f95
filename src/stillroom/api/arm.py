"""Azure's resource manager, as far as deploying a model needs it.

Any subscription, resource group, account and location is accepted: here is one account. The paths
are those of `Microsoft.CognitiveServices`; bodies and states follow its 2025-09-01 version.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from stillroom import catalog
from stillroom.api.wire import Call, Reply
from stillroom.catalog import Deployment, DeploymentState
from stillroom.config import SCRATCH
from stillroom.errors import InvalidRequest, NotFound, shortened

ACCOUNT_TYPE = "Microsoft.CognitiveServices/accounts"
DEFAULT_SKU = {"name": "Standard", "capacity": 1}
KEPT = ("sku", "tags")
KEPT_PROPERTIES = ("raiPolicyName", "versionUpgradeOption", "spilloverDeploymentName", "scaleSettings")
CHECKPOINT_PREFIXES = ("ftckpt_", "ftckpt-", "ftchkpt-")


async def put_deployment(call: Call) -> Reply:
    """Create or change a deployment."""
    body = call.json()
    extra = _kept(body)
    properties = _object(body, "properties")
    model = _object(properties, "model")
    if not isinstance(model.get("name"), str) or not model["name"]:
        raise InvalidRequest("The deployment needs 'properties.model.name'.", param="properties.model.name")
    extra["properties"] = {name: properties[name] for name in KEPT_PROPERTIES if name in properties}
    extra["model"] = model
    name = await asyncio.to_thread(_model_name, call, model["name"])
    made, new = await call.platform.deployments.put(call.project, call.parameters["deployment"], name, extra)
    return Reply(body=_shown(call, made), status=201 if new else 200)


async def get_deployment(call: Call) -> Reply:
    """Get a deployment and its state."""
    return Reply(body=_shown(call, await call.platform.deployments.get(call.project, call.parameters["deployment"])))


async def list_deployments(call: Call) -> Reply:
    """List deployments."""
    found = await call.platform.deployments.of_project(call.project)
    return Reply(body={"value": [_shown(call, deployment) for deployment in found]})


async def patch_deployment(call: Call) -> Reply:
    """Change a deployment's sku or tags."""
    body = call.json()
    name = call.parameters["deployment"]
    old = await call.platform.deployments.get(call.project, name)
    extra = {**old.extra, **_kept(body)}
    changed = await call.platform.writer.write_soon(
        lambda c: catalog.put_deployment(c, call.project, name, model=old.model, state=old.state, extra=extra)
    )
    return Reply(body=_shown(call, changed))


async def delete_deployment(call: Call) -> Reply:
    """Delete a deployment; the model stays."""
    gone = await call.platform.deployments.delete(call.project, call.parameters["deployment"])
    return Reply(body={}, status=200 if gone else 204)


def get_account(call: Call) -> Reply:
    """Get the account, which is this installation."""
    account = call.parameters["account"]
    properties = {"endpoint": _own_address(call), "provisioningState": "Succeeded", "customSubDomainName": account}
    return Reply(
        body={
            "id": _account_path(call),
            "name": account,
            "type": ACCOUNT_TYPE,
            "kind": "OpenAI",
            "location": "local",
            "sku": {"name": "S0"},
            "properties": properties,
        }
    )


def list_keys(call: Call) -> Reply:
    """Mint an API key: those made before cannot be shown again, because only their hashes are kept."""
    _, secret = call.platform.keys.create(call.project, f"listKeys of {call.parameters['account']}"[:64])
    return Reply(body={"key1": secret, "key2": secret})


def list_models(call: Call) -> Reply:
    """List the models that can be deployed or fine-tuned."""
    return Reply(body={"value": _models(call)})


def list_location_models(call: Call) -> Reply:
    """List the same models as a location has them: one level deeper."""
    return Reply(body={"value": [{"kind": "OpenAI", "skuName": "S0", "model": model} for model in _models(call)]})


def list_usages(call: Call) -> Reply:
    """List quotas: none is enforced."""
    with call.platform.database.read() as connection:
        count = len(catalog.list_deployments(connection, call.project))
    name = {"value": "OpenAI.Standard.Deployments", "localizedValue": "Deployments"}
    return Reply(body={"value": [{"name": name, "unit": "Count", "limit": 1_000_000.0, "currentValue": float(count)}]})


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    return {name: _object(body, name) for name in KEPT if body.get(name) is not None}


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"Invalid type for '{name}': expected an object.", param=name, code="invalid_type")
    return value or {}


def _models(call: Call) -> list[dict[str, Any]]:
    settings = call.platform.settings
    with call.platform.database.read() as connection:
        tuned = catalog.list_models(connection, call.project)
    items = [_model(name, base=None, trainable=name not in settings.teachers) for name in _base_names(call)]
    return items + [_model(model.azure_name, base=model.base, trainable=True) for model in tuned]


def _base_names(call: Call) -> list[str]:
    settings = call.platform.settings
    return [*settings.teachers, *sorted({SCRATCH, *settings.students} - set(settings.teachers))]


def _model(name: str, *, base: str | None, trainable: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "format": "OpenAI",
        "name": name,
        "version": "1",
        "isDefaultVersion": True,
        "skus": [
            {"name": "Standard", "usageName": "OpenAI.Standard.Deployments", "capacity": {"maximum": 1, "default": 1}}
        ],
        "maxCapacity": 1,
        "capabilities": {"chatCompletion": "true", "fineTune": str(trainable).lower()},
        "lifecycleStatus": "GenerallyAvailable",
    }
    return body if base is None else {**body, "baseModel": {"format": "OpenAI", "name": base, "version": "1"}}


def _model_name(call: Call, name: str) -> str:
    """A checkpoint may be named by its id."""
    if not name.startswith(CHECKPOINT_PREFIXES):
        return name
    checkpoint = call.platform.fine_tuning.checkpoint(call.project, name)
    if checkpoint is None:
        raise NotFound(f"The checkpoint '{shortened(name)}' does not exist.", param="properties.model.name")
    return checkpoint.azure_name


def _shown(call: Call, deployment: Deployment) -> dict[str, Any]:
    extra = deployment.extra
    model = {"format": "OpenAI", "version": "1", **extra.get("model", {}), "name": deployment.model}
    properties: dict[str, Any] = {
        **extra.get("properties", {}),
        "model": model,
        "provisioningState": deployment.state.value,
        "capabilities": {"chatCompletion": "true"},
        "rateLimits": [],
    }
    if deployment.state is DeploymentState.FAILED:
        properties["provisioningError"] = {"code": "DeploymentFailed", "message": deployment.error}
    sku = extra.get("sku") or DEFAULT_SKU
    return {
        "id": f"{_account_path(call)}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": f"{ACCOUNT_TYPE}/deployments",
        "sku": sku,
        "tags": extra.get("tags") or {},
        "etag": f'"{deployment.updated_at}"',
        "systemData": {
            "createdAt": _iso(deployment.created_at),
            "createdByType": "Key",
            "lastModifiedAt": _iso(deployment.updated_at),
            "lastModifiedByType": "Key",
        },
        "properties": {**properties, "currentCapacity": sku.get("capacity", 1)},
    }


def _account_path(call: Call) -> str:
    place = call.parameters
    group = f"/subscriptions/{place['subscription']}/resourceGroups/{place['group']}"
    return f"{group}/providers/{ACCOUNT_TYPE}/{place['account']}"


def _own_address(call: Call) -> str:
    return f"{call.scheme}://{call.headers.get('host', '127.0.0.1')}/"


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
