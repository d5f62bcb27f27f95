"""An installation's settings: read once from `stillroom.toml` and the environment, then passed down.

Each field is written once: its name, type, default, and below it what it does and in which unit.
The reference page, the environment variables and the messages for wrong values derive from that.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from stillroom.errors import ConfigurationError

log = logging.getLogger(__name__)

PREFIX = "STILLROOM_"
DATA = "./stillroom-data"
SERVER_FILE = "server.json"  # in the data folder while a server runs on it
CLIENT_VARIABLES = {"STILLROOM_URL", "STILLROOM_API_KEY", "STILLROOM_CONFIG", "STILLROOM_PORTAL"}  # no settings
MICRO = 1_000_000
MOST_TOKENS_USD = 1_000  # a million tokens; beyond, one call's cost could leave the database's integers
MOST_HOUR_USD = 10_000
FINE_TUNED = "ft:"  # how names of fine-tuned models begin
ORGANIZATION = re.compile(r"[A-Za-z0-9_-]{1,64}")
SCRATCH = "scratch-small"  # the built-in student base, always there


Count = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class Price(Section, frozen=True, kw_only=True):
    """What a model costs, in USD: per million tokens, and per hour for hosting."""

    input: float = 0.0
    """USD per million prompt tokens."""
    output: float = 0.0
    """USD per million generated tokens."""
    cached_input: float | None = None
    """USD per million prompt tokens that the teacher served from its cache. Default: as `input`."""
    training: float = 0.0
    """USD per million trained tokens (tokens in the file times epochs)."""
    hosting_hour: float = 0.0
    """USD per hour that a deployment of the model is loaded."""


class Teacher(Section, frozen=True, kw_only=True):
    """A model behind someone's chat completions API, callable under the table's name."""

    kind: Literal["openai", "azure"] = "openai"
    """`openai` for OpenAI and every compatible server, `azure` for an Azure OpenAI resource."""
    base_url: str = ""
    """Where `/chat/completions` hangs, such as `https://api.openai.com/v1`. For kind `openai`."""
    endpoint: str = ""
    """The resource's address, such as `https://NAME.openai.azure.com`. For kind `azure`."""
    deployment: str = ""
    """The deployment's name at Azure. Default: the table's name."""
    api_version: str = "2024-10-21"
    """Azure's `api-version`."""
    api_key: str = ""
    """`env:NAME` or `file:PATH`; empty for a server that asks for none."""
    model: str = ""
    """The model's name upstream. Default: the table's name."""
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0
    """How many alternatives at each token of a stored answer the teacher is asked for, to be kept as soft labels (1 to
    20; few teachers know more than 5, `stillroom teachers probe` finds out). 0: none."""
    price: Price = Price()
    """What its tokens cost."""


class Student(Section, frozen=True, kw_only=True):
    """A base model that can be fine-tuned and served here, named by the table."""

    path: str = ""
    """A hub id, or a local folder with safetensors weights (relative to where the server was started). `scratch-small`:
    the built-in student, under this name."""
    revision: str = ""
    """The hub revision to pin. Default: the newest."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The numbers it is computed in. `auto`: bfloat16 on a GPU that has it, else float32."""
    quantization: Literal["none", "4bit"] = "none"
    """`4bit` trains adapters on the base's weights rounded to 4 bits (QLoRA): a quarter of the memory. Needs
    `pip install 'stillroom[qlora]'` where jobs run and students are served."""
    price: Price = Price()
    """What training, hosting and serving it is to be counted at."""


class GatewaySettings(Section, frozen=True, kw_only=True):
    """How calls to teachers and students are carried through."""

    connect_seconds: float = 5.0
    """How long opening a connection to a teacher may take."""
    first_token_seconds: float = 300.0
    """How long a teacher may take until its answer begins."""
    idle_seconds: float = 60.0
    """How long a stream may fall silent between two chunks."""
    total_seconds: float = 600.0
    """How long one call may take in all, retries included."""
    attempts: Count = 3
    """How often a teacher is asked at most, when it cannot be reached or answers 408, 429 or 5xx."""
    chat_body_bytes: int = 64 * 1024 * 1024
    """The largest chat request taken; larger ones get 413."""
    file_bytes: int = 512 * 1024 * 1024
    """The largest file taken; larger ones get 413."""
    answer_bytes: int = 64 * 1024 * 1024
    """The largest answer taken from a teacher; larger ones get 502."""


class TrainingSettings(Section, frozen=True, kw_only=True):
    """How fine-tuning jobs run on this machine."""

    running_jobs: int = 1
    """How many jobs train at the same time."""
    threads: int = 0
    """CPU threads a job uses, shared by its processes. 0: all cores."""
    processes: Count = 1
    """How many processes train a job together, each a part of every step's examples. With GPUs, as many as there are."""
    sharding: bool = False
    """Whether these hold a shard of weights and optimizer state each (FSDP), for models that do not fit into one GPU,
    or all of them."""
    memory_gb: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    """How much memory each training process may take, in GB (of its GPU where there is one). 0: what is free when the
    job starts."""
    checkpoint_seconds: float = 30.0
    """How often a running job saves the state it can go on from after a crash."""
    attempts: Count = 3
    """How often a job's process may die between two checkpoints before the job counts as failed."""
    wandb_api_key: str = "env:WANDB_API_KEY"
    """The key for jobs that ask for the integration `wandb`: `env:NAME` or `file:PATH`. It is looked for when such a
    job is made and when it starts, and never written down."""


class ServingSettings(Section, frozen=True, kw_only=True):
    """How deployed students run on this machine."""

    threads: int = 0
    """CPU threads the students' process uses. 0: all cores."""
    idle_seconds: float = 1800.0
    """A student that nobody called for so long is unloaded; its next call loads it again."""
    start_seconds: float = 300.0
    """How long starting the students' process or loading a student may take; loading includes proving that the student
    behaves as it was trained."""


class EvalsSettings(Section, frozen=True, kw_only=True):
    """How eval runs are carried through."""

    running_runs: Annotated[int, msgspec.Meta(ge=0)] = 2
    """How many runs are worked on at the same time. 0: none here; a `stillroom worker` beside does it."""
    concurrent_calls: Count = 8
    """How many items of a run are sampled and graded at the same time."""
    patience_seconds: float = 300.0
    """How long a run tries again while a model is overloaded or cannot be reached, counted from the model's last
    answer. A run fails when 20 calls in a row were given up."""
    unsafe_python_graders: bool = False
    """Run Python graders without the sandbox, where it cannot be had: whoever may define a grader can then do
    whatever the server's own user can, reading its keys and its data included."""
    python_seconds: float = 120.0
    """How long a Python grader may take for one item."""
    python_memory_mb: Count = 2048
    """How much memory a Python grader may use, in MB."""


class DistillationSettings(Section, frozen=True, kw_only=True):
    """How `stillroom distill run` asks teachers for labels."""

    attempts: Count = 4
    """How often a row is asked for at most, when the teacher answers 408, 413, 429 or 5xx, cannot be reached or takes too
    long. Being told to wait (429) does not count while other rows are answered."""
    retry_seconds: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """How long the first pause between two tries is, unless the teacher says; each further one is twice as long, and none
    longer than 600 seconds."""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 180.0
    """How long one answer may take."""


class Settings(Section, frozen=True, kw_only=True, dict=True):
    """Everything one installation is told."""

    data: str = DATA
    """The folder for the database, files, models and runs."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8000
    """The port of the plain HTTP listener."""
    tls_port: int = 0
    """The port of the TLS listener, which Azure's management SDK needs. 0: none."""
    organization: str = "stillroom"
    """The organization's name inside fine-tuned model names."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious message that is logged."""
    teachers: dict[str, Teacher] = {}
    """Teachers by the name they are called by."""
    students: dict[str, Student] = {}
    """Base models by the name they are fine-tuned under. `scratch-small` is always there."""
    gateway: GatewaySettings = GatewaySettings()
    """Limits and times of calls."""
    training: TrainingSettings = TrainingSettings()
    """Fine-tuning jobs."""
    serving: ServingSettings = ServingSettings()
    """Deployed students."""
    evals: EvalsSettings = EvalsSettings()
    """Eval runs and graders."""
    distillation: DistillationSettings = DistillationSettings()
    """Runs of `stillroom distill run`."""

    @cached_property
    def folder(self) -> Path:
        """The data folder as an absolute path."""
        return _folder(self.data)


TABLES: dict[str, type[Section]] = {"teachers": Teacher, "students": Student}
"""The tables whose names are their owner's choice."""


def load(path: str | None = None, **flags: Any) -> Settings:
    """The settings from file, then environment, then flags; each overrides what came before.

    A flag that is None was not given. Raises ConfigurationError naming the table and field.
    """
    values = _from_file(path)
    _merge(values, _from_environment(dict(os.environ)))
    _merge(values, {name: value for name, value in flags.items() if value is not None})
    settings = _convert(values)
    _check(settings)
    return _without_paths_to_scratch(settings)


def data_folder() -> Path:
    """The data folder that file and environment name, for those who need no other setting."""
    return _folder(str(os.environ.get(f"{PREFIX}DATA") or _from_file(None).get("data", DATA)))


def running_server(folder: Path) -> dict[str, Any]:
    """What the server that runs on a data folder says of itself: `url`, `tls_url`, `ca`, `pid`; empty when none does."""
    try:
        return dict(json.loads((folder / SERVER_FILE).read_text()))
    except FileNotFoundError:
        return {}


def sign_in_address(url: str, token: str) -> str:
    """Where a browser goes to be signed in. Behind `#`, the token is sent to no server and stays in no log of one."""
    return f"{url}/#signin={token}"


def _folder(text: str) -> Path:
    return Path(text).expanduser().resolve()


def secret(text: str) -> str:
    """The secret that `env:NAME` or `file:PATH` points to. Other text is itself."""
    kind, _, rest = text.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise ConfigurationError(f"The environment variable {rest} (from `env:{rest}`) is not set.", param=rest)
        return os.environ[rest]
    if kind == "file":
        try:
            return Path(rest).expanduser().read_text().strip()
        except OSError as error:
            raise ConfigurationError(f"The secret file {rest} cannot be read: {error.strerror}.", param=rest) from error
    return text


def _from_file(path: str | None) -> dict[str, Any]:
    chosen = path or os.environ.get("STILLROOM_CONFIG") or "stillroom.toml"
    try:
        return tomllib.loads(Path(chosen).read_text())
    except FileNotFoundError:
        if path or "STILLROOM_CONFIG" in os.environ:
            raise ConfigurationError(f"The configuration file {chosen} does not exist.", param="config") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{chosen} is not valid TOML: {error}", param="config") from error


def variables() -> dict[str, tuple[str, ...]]:
    """Environment variable -> the path of the field it sets."""
    found: dict[str, tuple[str, ...]] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            for inner in msgspec.structs.fields(field.type):
                found[f"{PREFIX}{field.name}_{inner.name}".upper()] = (field.name, inner.name)
        else:
            found[f"{PREFIX}{field.name}".upper()] = (field.name,)
    return found


def _from_environment(environment: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = variables()
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in CLIENT_VARIABLES:
            continue
        if name not in known:
            log.warning("The environment variable %s sets nothing: there is no such setting.", name)
            continue
        *outer, last = known[name]
        target = values.setdefault(outer[0], {}) if outer else values
        target[last] = _json_table(name, text) if last in ("teachers", "students") else text
    return values


def _json_table(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} must be a JSON object: {error}", param=name) from error


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def _convert(values: dict[str, Any]) -> Settings:
    known = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    named: dict[str, Any] = dict(values)
    for name, value in values.items():
        if name in TABLES and isinstance(value, dict):
            kind = TABLES[name]
            named[name] = {key: _section(inner, kind, f'[{name}."{key}"]') for key, inner in value.items()}
        elif isinstance(value, dict) and name in known:
            named[name] = _section(value, known[name], f"[{name}]")
    settings = _section(named, Settings, "at the top level")
    assert isinstance(settings, Settings)
    return settings


def _section(value: Any, kind: Any, where: str) -> Any:
    try:
        # Not strict, so that the environment's text becomes the numbers it spells.
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The configuration is wrong, {where}: {error}.{_hint(error, kind, value)}") from error


def _hint(error: msgspec.ValidationError, kind: type[Section], value: Any) -> str:
    """What would be right: the fields there are, the words that are allowed, the quotes that are missing."""
    text = str(error)
    if "unknown field" in text:
        if isinstance(value, dict) and any(
            isinstance(inner, dict) and name != "price" for name, inner in value.items()
        ):
            return ' A name with a dot must be quoted: [teachers."gpt-4.1"].'
        return f" Known are: {', '.join(kind.__struct_fields__)}."
    path = text.rpartition("$.")[2].rstrip("`")
    for field in msgspec.structs.fields(kind):
        if field.name == path and get_origin(field.type) is Literal:
            return f" Allowed are: {', '.join(get_args(field.type))}."
    variable = next((name for name, way in variables().items() if way[-1] == path and name in os.environ), None)
    return f" It was set by {variable}." if variable else ""


def _without_paths_to_scratch(settings: Settings) -> Settings:
    """The built-in student has no weights before a job, under whatever name; that is known by the empty path."""
    students = {
        name: msgspec.structs.replace(student, path="") if student.path == SCRATCH else student
        for name, student in settings.students.items()
    }
    return msgspec.structs.replace(settings, students=students)


def _check(settings: Settings) -> None:
    if settings.training.sharding and settings.training.processes == 1:
        log.warning("[training]: sharding has no effect with one process.")
    for name, teacher in settings.teachers.items():
        _check_teacher(name, teacher)
    for name, student in settings.students.items():
        _check_student(name, student)
    if not ORGANIZATION.fullmatch(settings.organization):
        raise ConfigurationError(
            f"`organization` is {settings.organization!r}; it becomes part of model names: letters, digits, '-' and '_'.",
            param="organization",
        )
    if settings.training.wandb_api_key and not settings.training.wandb_api_key.startswith(("env:", "file:")):
        log.warning("[training]: wandb_api_key is written in the configuration; prefer env:NAME or file:PATH.")
    if not 0 <= settings.port < 65536 or not 0 <= settings.tls_port < 65536:
        raise ConfigurationError("`port` and `tls_port` must be between 0 and 65535.", param="port")


def _check_price(where: str, price: Price) -> None:
    for field in msgspec.structs.fields(Price):
        usd = getattr(price, field.name)
        most = MOST_HOUR_USD if field.name == "hosting_hour" else MOST_TOKENS_USD
        if usd is not None and not 0 <= usd <= most:  # NaN is neither
            raise ConfigurationError(
                f"{where}: the price `{field.name}` is {usd}; expected USD from 0 to {most}.", param=field.name
            )


def _check_student(name: str, student: Student) -> None:
    _check_price(f'[students."{name}"]', student.price)
    if not student.path and name != SCRATCH:
        raise ConfigurationError(f'[students."{name}"] needs `path`: a hub id or a local folder.', param="path")
    if student.path.startswith((".", "/", "~")) and not Path(student.path).expanduser().is_dir():
        raise ConfigurationError(f'[students."{name}"]: there is no folder {student.path}.', param="path")
    if not student.path and (student.precision, student.quantization) != ("auto", "none"):
        log.warning('[students."%s"]: precision and quantization have no effect; it is float32 always.', name)


def _check_teacher(name: str, teacher: Teacher) -> None:
    _check_price(f'[teachers."{name}"]', teacher.price)
    if name == SCRATCH or name.startswith(FINE_TUNED):
        raise ConfigurationError(
            f'[teachers."{name}"]: that name belongs to students; choose another.', param="teachers"
        )
    field = "endpoint" if teacher.kind == "azure" else "base_url"
    address = getattr(teacher, field)
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ConfigurationError(
            f'[teachers."{name}"] needs `{field}`, an http(s) address; got {address!r}.', param=field
        )
    if teacher.kind == "openai" and (teacher.endpoint or teacher.deployment):
        log.warning('[teachers."%s"]: endpoint and deployment have no effect for kind "openai".', name)
    if teacher.kind == "azure" and teacher.base_url:
        log.warning('[teachers."%s"]: base_url has no effect for kind "azure".', name)
    if teacher.api_key and not teacher.api_key.startswith(("env:", "file:")):
        log.warning('[teachers."%s"]: the key is written in the configuration; prefer env:NAME or file:PATH.', name)
