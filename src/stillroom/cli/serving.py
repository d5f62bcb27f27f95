"""`stillroom deploy`, `deployments` and `chat`: put a model behind a name and talk to it."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from typing import Annotated, Any

import typer

from stillroom.cli.client import ACCOUNT, ARM_VERSION, Client, connect, segment
from stillroom.cli.options import Data, Json, Wait
from stillroom.cli.output import as_json, err, fail, note, out, say, table

deployments = typer.Typer(help="Deployments of the running server.", no_args_is_help=True)

LOOK_SECONDS = 0.2
DEPLOYMENTS = "/v1/stillroom/deployments"


def deploy(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A fine-tuned model, a checkpoint or a teacher.")],
    name: Annotated[str, typer.Option("--name", help="The name to call it by.")],
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
) -> None:
    """Put a model behind a name."""
    reached = connect(data)
    body = {
        "sku": {"name": "Standard", "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
    }
    path = f"{ACCOUNT}/{segment(name)}"
    made = reached.put(path, body, ARM_VERSION)
    if wait:
        made = await_deployment(reached, path)
    state = made["properties"]["provisioningState"]
    if json:
        as_json(made)
    else:
        say(f"{name}: {state}")
    if state == "Failed":
        fail(made["properties"]["provisioningError"]["message"])
        raise typer.Exit(1)


def await_deployment(reached: Client, path: str) -> dict[str, Any]:
    """The deployment, once it is no longer being made."""
    with err.status("loading the model ..."):
        while (made := reached.get(path, ARM_VERSION))["properties"]["provisioningState"] == "Creating":
            time.sleep(LOOK_SECONDS)
    return made


@deployments.command("list")
def list_(json: Json = False, data: Data = None) -> None:
    """List deployments, with their calls of the last 30 days and the prompt tokens that these saved."""
    reached = connect(data)
    if json:
        as_json(reached.get(ACCOUNT, ARM_VERSION)["value"])
        return
    shown = ("name", "model", "state", "calls", "saved_prompt_tokens")
    rows = [[each[name] for name in shown] for each in reached.get(DEPLOYMENTS)["data"]]
    table(("NAME", "MODEL", "STATE", "CALLS", "SAVED"), rows, "No deployments.")


@deployments.command()
def delete(name: Annotated[str, typer.Argument()], data: Data = None) -> None:
    """Delete a deployment; the model stays."""
    reached = connect(data)
    path = f"{ACCOUNT}/{segment(name)}"
    reached.get(path, ARM_VERSION)  # so that a name mistyped is an error, as ARM's delete is silent
    reached.delete(path, ARM_VERSION)
    say(f"{name} is deleted.")


def chat(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A deployment, a teacher or a fine-tuned model.")],
    message: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    temperature: Annotated[float, typer.Option(help="0 always gives the likeliest answer.")] = 0.0,
    data: Data = None,
) -> None:
    """Talk to a model."""
    reached = connect(data)
    messages = [{"role": "system", "content": system}] if system else []
    if message is not None:
        _answer(reached, name, [*messages, {"role": "user", "content": message}], temperature)
        return
    note("Ctrl-D ends the conversation.")
    while (text := _read()) is not None:
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": _answer(reached, name, messages, temperature)})


def _read() -> str | None:
    err.print("> ", end="")
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _answer(reached: Client, name: str, messages: list[dict[str, str]], temperature: float) -> str:
    body = {"model": name, "messages": messages, "stream": True, "temperature": temperature}
    said = ""
    for line in reached.lines("/v1/chat/completions", body):
        payload = line.removeprefix("data: ")
        if payload in (line, "[DONE]"):
            continue
        chunk = jsonlib.loads(payload)
        if "error" in chunk:
            fail(chunk["error"]["message"])
            raise typer.Exit(1)
        piece = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        said += piece
        out.out(piece, end="")
    out.out("")
    return said
