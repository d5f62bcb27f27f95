"""The command tree, and the commands that run something: serve, demo, worker, env."""

from __future__ import annotations

import shlex
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillroom import __version__, demo
from stillroom import config as configuration
from stillroom.cli import (
    browser,
    client,
    completions,
    costs,
    curating,
    distilling,
    distilling_files,
    evaluating,
    exporting,
    keys,
    preferring,
    serving,
    teaching,
)
from stillroom.cli.options import Data
from stillroom.cli.output import note, say
from stillroom.config import Settings
from stillroom.telemetry import start_logging

if TYPE_CHECKING:
    from stillroom.api import server

app = typer.Typer(
    name="stillroom",
    help="Store completions, fine-tune a student on them, serve it behind the same API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys.app, name="keys")
app.add_typer(completions.app, name="completions")
app.add_typer(distilling.jobs, name="jobs")
distilling.models.command()(exporting.export)
app.add_typer(distilling.models, name="models")
app.add_typer(serving.deployments, name="deployments")
app.add_typer(teaching.app, name="teachers")
distilling.app.command("pairs")(preferring.make_pairs)
distilling.app.command()(curating.report)
distilling.app.command()(distilling_files.run)
app.add_typer(distilling.app, name="distill")
app.command()(serving.deploy)
app.command()(serving.chat)
app.command()(costs.usage)
app.command()(costs.prices)
app.add_typer(costs.budget, name="budget")
app.add_typer(evaluating.app, name="evals")

Config = Annotated[str | None, typer.Option("--config", help="The configuration file. Default: ./stillroom.toml.")]


@app.callback(invoke_without_command=True)
def stillroom(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(__version__)
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on. Default: 8000.")] = None,
    tls_port: Annotated[int | None, typer.Option(help="Listen with TLS as well, for Azure's management SDK.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder. Default: ./stillroom-data.")] = None,
    config: Config = None,
) -> None:
    """Run the server: the API, the students and the fine-tuning jobs."""
    # Here, because the commands that only talk to a server would take three times as long to start.
    from stillroom.api import server  # noqa: PLC0415

    settings = _settings(config, host=host, port=port, tls_port=tls_port, data=data)
    server.serve(settings, lambda addresses, secrets: _announce(settings, addresses, secrets))


@app.command()
def worker(
    data: Annotated[str | None, typer.Option(help="The server's data folder. Default: ./stillroom-data.")] = None,
    config: Config = None,
) -> None:
    """Claim and run fine-tuning jobs beside a server, on the same database and files."""
    from stillroom.worker import standalone  # noqa: PLC0415 - as above

    standalone.work(_settings(config, data=data))


@app.command()
def portal(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser as well.")] = False,
    data: Data = None,
) -> None:
    """Print an address of the portal that signs a browser in, once and within ten minutes."""
    reached = client.connect(data)
    address = configuration.sign_in_address(reached.url, reached.post("/v1/stillroom/sign_in_tokens")["token"])
    say(address)
    if open_:
        browser.open_once(address)


@app.command("demo")
def run_demo(
    data: Annotated[str, typer.Option(help="The demo's own data folder.")] = "./demo-data",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    fast: Annotated[
        bool, typer.Option("--fast", help="A tenth of the chats: shows the steps, not the quality.")
    ] = False,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    teacher: Annotated[
        str | None, typer.Option(help="A teacher of the configuration instead of the scripted one.")
    ] = None,
    student: Annotated[str, typer.Option(help="The student base to fine-tune.")] = configuration.SCRATCH,
    config_file: Config = None,
) -> None:
    """Show the whole loop on this machine: capture, select, train, deploy, compare. Needs no key."""
    asked = demo.Demo(
        data=data, port=port, fast=fast, exit=exit_, json=json, teacher=teacher, student=student, config=config_file
    )
    demo.run(asked)


@app.command()
def env(
    shell: Annotated[bool, typer.Option("--shell", help="Print `export` lines, for eval.")] = False,
    azure: Annotated[bool, typer.Option("--azure", help="For Azure's SDKs instead of OpenAI's.")] = False,
    data: Data = None,
) -> None:
    """Print the environment variables that point SDKs at the running server."""
    reached = client.connect(data)
    known = configuration.running_server(client.data_folder(data))
    if known.get("url") != reached.url:
        known = {}  # another server's than the one that is named
    variables = _azure_variables(reached, known) if azure else _openai_variables(reached)
    for name, value in variables.items():
        say(f"export {name}={shlex.quote(value)}" if shell else f"{name}={value}")
    if azure and not known.get("tls_url"):
        note("Azure's management SDK (deployments) needs TLS: start the server with --tls-port.")


def _openai_variables(reached: client.Client) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": f"{reached.url}/v1",
        "OPENAI_API_KEY": reached.key,
        "STILLROOM_URL": reached.url,
        "STILLROOM_API_KEY": reached.key,
    }


def _azure_variables(reached: client.Client, known: dict[str, str]) -> dict[str, str]:
    found = {
        "AZURE_OPENAI_ENDPOINT": reached.url,
        "AZURE_OPENAI_API_KEY": reached.key,
        "OPENAI_API_VERSION": "2024-10-21",
        "IDENTITY_ENDPOINT": f"{reached.url}/msi/token",
        "IDENTITY_HEADER": reached.key,
    }
    if known.get("tls_url"):
        found["AZURE_RESOURCE_MANAGER_URL"] = known["tls_url"]
        found["REQUESTS_CA_BUNDLE"] = found["SSL_CERT_FILE"] = str(_bundle(Path(known["ca"])))
    return found


def _bundle(ours: Path) -> Path:
    """A file with this machine's authorities and ours, so that what else the shell reaches still works."""
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    bundle = ours.with_name("bundle.pem")
    bundle.write_text(ours.read_text() + "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in known))
    return bundle


def _settings(path: str | None, **flags: object) -> Settings:
    start_logging("info")
    settings = configuration.load(path, **flags)
    start_logging(settings.log_level)
    return settings


def _announce(settings: Settings, addresses: server.Addresses, secrets: server.Secrets) -> None:
    say(f"stillroom answers at {addresses.url}/v1 (OpenAI) and {addresses.url} (Azure OpenAI)")
    if addresses.tls_url:
        say(f"and with TLS at {addresses.tls_url}; its authority is {addresses.ca}")
    if secrets.portal:
        say(f"The portal, for a browser (signs in once, within an hour): {secrets.portal}")
    else:
        note("The portal is not built: see the page at that address.")
    if secrets.new_key:
        say(f"The admin key of this new data folder, also in {settings.folder}/admin-key: {secrets.new_key}")
    if not settings.teachers:
        note("No teachers are configured: see [teachers] in stillroom.toml.")
    say(f'Point a client here with: eval "$(stillroom env --shell --data {shlex.quote(str(settings.folder))})"')
