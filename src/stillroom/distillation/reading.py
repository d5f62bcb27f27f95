"""A distillation as it is written down: Azure ML's distillation jobs, and a shorter form of our own.

    teacher: gpt-4o                     type: distillation
    student: qwen3-0.6b                 teacher_model_endpoint_connection: {...}
    source: ./questions.jsonl           student_model: azureml://registries/.../models/NAME/versions/2
                                        training_data: {type: uri_file, path: ./train.jsonl}
                                        ...

Both are read by the same rules, and keys of one may stand in the other. Knows names and ranges; what the rows say
and whether a model answers is found out later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from stillroom import config
from stillroom.billing import microusd
from stillroom.config import SCRATCH, Settings, Teacher
from stillroom.curation import Curation
from stillroom.datasets.selection import MINIMUM
from stillroom.distillation.problems import Fields, InvalidJobFile, Problems, number_of, written
from stillroom.distillation.sources import Sources
from stillroom.distillation.spec import DPO, Prompting, Reasoning, Source, Spec, Task, Thinking
from stillroom.errors import InvalidRequest
from stillroom.fine_tuning.method import Hyperparameters
from stillroom.fine_tuning.order import Order, parse_order

AZURE_MINIMUM, AZURE_MATH_MINIMUM = 65, 40
LABEL_TOKENS, SUMMARY_TOKENS = 128, 1024  # what Azure asks for when a file does not say
AT_ONCE, MOST_AT_ONCE = 10, 100
SUCCESS_RATIO = 0.7
SUMMARY_WORDS = 80
MOST_SAMPLES = 64
NAME_LETTERS = 64  # it is a folder's name
EXPECTED = re.compile(r"Expected `([^`]+)`")
WORDS = {"bool": "true or false", "str": "text", "int": "a whole number", "float": "a number", "array": "a list"}
ANY_JOB = {"model": "student", "training_file": "file"}
REGISTRY = re.compile(r"azureml:(?://registries/[^/]+/models/|)([^/:]+)(?:/(?:versions|labels)/|:)[^/]+")
ELSEWHERE = re.compile(r"[/\\]|^\.")
NAME = re.compile(r"[^A-Za-z0-9_-]+")

AZURE_KEYS = {"type", "name", "description", "data_generation_type", "data_generation_task_type", "training_data"}
AZURE_KEYS |= {"validation_data", "teacher_model_endpoint_connection", "student_model", "outputs", "prompt_settings"}
AZURE_KEYS |= {"teacher_model_settings", "hyperparameters", "resources"}
IDLE_KEYS = {"$schema", "experiment_name", "display_name", "tags", "properties"}
OUR_KEYS = {"teacher", "student", "source", "validation_source", "validation_fraction", "curation", "reasoning"}
OUR_KEYS |= {"budget_usd", "method", "seed", "suffix", "task"}

RANGES: Mapping[str, tuple[float, float | None]] = {
    "temperature": (0, 1),
    "top_p": (0, 1),
    "frequency_penalty": (0, 2),
    "presence_penalty": (0, 2),
}
COUNTS = ("max_tokens", "max_completion_tokens", "seed")
AZURE_HYPERPARAMETERS = {"num_train_epochs": "n_epochs", "per_device_train_batch_size": "batch_size"}


def read(given: Path | Mapping[str, Any], settings: Settings) -> Spec:
    """The spec in a YAML file, or in a mapping with its keys. Relative paths are relative to the file.

    Raises InvalidJobFile, which tells all that is wrong.
    """
    if isinstance(given, Mapping):
        return _Reader("The distillation", given, Path.cwd(), "distillation", settings).spec()
    values = _parsed(given)
    if not isinstance(values, Mapping):
        found = "is empty" if values is None else f"is {written(values)}"
        raise InvalidJobFile(f"{given} {found}; expected keys and values.", param="file")
    return _Reader(given.name, values, given.resolve().parent, given.stem, settings).spec()


def _parsed(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return yaml.load(file, _Loader)  # noqa: S506 - a safe loader that also refuses keys written twice
    except FileNotFoundError:
        raise InvalidJobFile(f"There is no file {path}.", param="file") from None
    except OSError as error:
        raise InvalidJobFile(f"{path} cannot be read: {error.strerror}.", param="file") from error
    except RecursionError:
        raise InvalidJobFile(f"{path} is nested too deeply for a job file.", param="file") from None
    except (yaml.YAMLError, ValueError) as error:  # also a date that is none, a number of 5,000 digits, no UTF-8
        raise InvalidJobFile(f"{path} is no valid YAML: {error}", param="file") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice in one table, of which YAML's own would drop the first without a word, and
    aliases, by which a few lines can unfold to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"`*{alias.anchor}` stands for another part of the file; write that out", alias.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key.value}` is written twice; leave one out", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Reader:
    """One file on its way to a spec."""

    def __init__(self, file: str, values: Mapping[str, Any], folder: Path, stem: str, settings: Settings) -> None:
        self._problems = Problems(file)
        self._top = Fields(values, "", self._problems)
        self._folder = folder
        self._stem = stem
        self._settings = settings

    def spec(self) -> Spec:
        top = self._top
        self._check_keys()
        name = self._name()
        task = self._task()
        is_azure = "data_generation_type" in top or "training_data" in top
        training, validation = Sources(top, self._folder).read(is_azure)
        teacher, endpoint = self._teacher(training, is_azure)
        student_key, student = self._student(is_azure)
        curation = top.table("curation")
        samples, judge = self._best_of(curation)
        order, hyperparameters, learning_rate = self._order()
        settings = top.table("teacher_model_settings").table("endpoint_request_settings")
        settings.refuse_unknown({"request_batch_size", "min_endpoint_success_ratio"})
        prompting = self._prompting(task, is_azure)
        spec = Spec(
            name=name,
            teacher=teacher,
            endpoint=endpoint,
            student=student,
            student_key=student_key,
            suffix=self._suffix(name),
            training=training,
            validation=validation,
            validation_fraction=top.number("validation_fraction", 0.0, low=0, high=0.9),
            minimum_rows=_minimum(task) if is_azure else MINIMUM,
            needs_system=is_azure,
            prompting=prompting,
            inference=self._inference(prompting, is_azure),
            at_once=settings.whole("request_batch_size", AT_ONCE, low=1, high=MOST_AT_ONCE),
            success_ratio=settings.number("min_endpoint_success_ratio", SUCCESS_RATIO, low=0, high=1),
            reasoning=Reasoning(top.choice("reasoning", list(Reasoning), Reasoning.STRIP)),
            curation=self._curation(curation),
            samples=samples,
            judge=judge,
            budget_microusd=self._budget(),
            method=order.method,
            judged_by=order.teacher,
            hyperparameters=hyperparameters,
            learning_rate=learning_rate,
            seed=top.whole("seed", 0, low=0, high=2**31 - 1),
        )
        self._check_together(spec, is_azure)
        self._problems.raise_any()
        return replace(spec, warnings=tuple(self._problems.warnings))

    # --- what is distilled ------------------------------------------------------------------------------

    def _check_keys(self) -> None:
        top = self._top
        top.refuse_unknown(AZURE_KEYS | IDLE_KEYS | OUR_KEYS)
        top.choice("type", ("distillation",), "distillation")
        if top.choice("data_generation_type", ("label_generation", "data_generation"), "label_generation") != (
            "label_generation"
        ):
            top.refuse("data_generation_type", "is 'data_generation'; only 'label_generation' works, here as at Azure.")
        for key in sorted(IDLE_KEYS - {"$schema"}):
            if key in top:
                top.warn(key, "has no effect here.")
        resources = top.table("resources")
        resources.refuse_unknown({"instance_type", "instance_count"})
        for key in ("instance_type", "instance_count"):
            if key in resources:
                resources.warn(key, "has no effect: teacher and student are asked and trained from this machine.")

    def _name(self) -> str:
        given = self._top.text("name")
        name = sanitised(given)
        if ELSEWHERE.search(given):
            self._top.refuse(
                "name", f"is {written(given)}; expected a word, not a path: the folder is the data folder's."
            )
        if len(name) > NAME_LETTERS:
            self._top.refuse("name", f"has {len(name)} letters; expected {NAME_LETTERS} at most.")
        return name or sanitised(self._stem)[:NAME_LETTERS] or "distillation"

    def _task(self) -> Task | None:
        top = self._top
        key = "task" if "task" in top else "data_generation_task_type"
        if "task" in top and "data_generation_task_type" in top:
            top.refuse("task", "stands beside `data_generation_task_type`, which means the same. Leave one out.")
        if "data_generation_type" in top and key not in top:
            top.refuse(key, f"is missing: write one of {', '.join(Task)}.")
        word = top.choice(key, list(Task), "")
        return Task(word) if word else None

    def _prompting(self, task: Task | None, is_azure: bool) -> Prompting:
        asked = self._top.table("prompt_settings")
        known = {"enable_chain_of_thought", "enable_chain_of_density", "max_len_summary", "system_prompt"}
        asked.refuse_unknown(known)
        thinking = Thinking.NONE
        if asked.flag("enable_chain_of_thought"):
            if task in (Task.CONVERSATION, Task.SUMMARIZATION):
                asked.warn("enable_chain_of_thought", f"has no effect on {task}.")
            else:
                thinking = Thinking.CHAIN_OF_THOUGHT
        if asked.flag("enable_chain_of_density"):
            if task is Task.SUMMARIZATION:
                thinking = Thinking.CHAIN_OF_DENSITY
            else:
                asked.warn("enable_chain_of_density", "has no effect but on summarization.")
        if "max_len_summary" in asked and thinking is not Thinking.CHAIN_OF_DENSITY:
            asked.warn("max_len_summary", "has no effect without enable_chain_of_density.")
        return Prompting(
            task=task,
            thinking=thinking,
            summary_words=asked.whole("max_len_summary", SUMMARY_WORDS, low=1, high=10_000),
            system_prompt=asked.text("system_prompt") or None,
            sees_own_answers=not is_azure,
        )

    def _inference(self, prompting: Prompting, is_azure: bool) -> dict[str, Any]:
        settings = self._top.table("teacher_model_settings")
        settings.refuse_unknown({"inference_parameters", "endpoint_request_settings"})
        asked = settings.table("inference_parameters")
        asked.refuse_unknown({*RANGES, *COUNTS, "max_new_tokens", "stop", "reasoning_effort"})
        found: dict[str, Any] = {}
        if is_azure:  # its service sends these; elsewhere a teacher's own defaults are better
            summary = prompting.task is Task.SUMMARIZATION
            found = {"max_tokens": SUMMARY_TOKENS if summary else LABEL_TOKENS, "temperature": 0.2, "top_p": 0.1}
        for key, (low, high) in RANGES.items():
            if key in asked:
                found[key] = asked.number(key, 0.0, low=low, high=high)
        for key in ("max_new_tokens", *COUNTS):
            if key in asked:
                name = "max_tokens" if key == "max_new_tokens" else key
                found[name] = asked.whole(key, 1, low=0 if key == "seed" else 1)
        if "max_completion_tokens" in found:
            found.pop("max_tokens", None)  # servers refuse a request with both
        if "reasoning_effort" in asked:
            found["reasoning_effort"] = asked.text("reasoning_effort")
        if "stop" in asked:
            found["stop"] = self._stop(asked)
        return found

    def _stop(self, asked: Fields) -> Any:
        stop = asked.take("stop")
        words = [stop] if isinstance(stop, str) else stop
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            asked.refuse("stop", f"is {written(stop)}; expected a text, or a list of texts.")
        return stop

    # --- who takes part ---------------------------------------------------------------------------------

    def _teacher(self, training: Source, is_azure: bool) -> tuple[str | None, Teacher | None]:
        top = self._top
        if "teacher_model_endpoint_connection" in top:
            if "teacher" in top:
                top.refuse("teacher", "stands beside `teacher_model_endpoint_connection`. Leave one out.")
            return self._connection()
        if is_azure and "teacher" not in top:
            top.refuse(
                "teacher_model_endpoint_connection",
                "is missing: name the teacher's endpoint, or write `teacher: NAME` for one that is configured.",
            )
        return top.text("teacher") or None, None

    def _connection(self) -> tuple[str | None, Teacher | None]:
        top = self._top
        key = "teacher_model_endpoint_connection"
        if isinstance(top.take(key), str):  # a workspace connection, by its name
            name = str(top.take(key)).removeprefix("azureml:")
            if name not in self._settings.teachers:
                top.refuse(key, f'is {name!r}; add [teachers."{name}"] with its `base_url` to stillroom.toml.')
            return name, None
        asked = top.table(key)
        asked.refuse_unknown({"type", "name", "endpoint", "api_key"})
        name = asked.text("name", needed="the name under which the teacher is metered and configured.")
        if name in self._settings.teachers:
            return name, None  # so that the file needs no edit
        endpoint = asked.text("endpoint", needed=f'its address; or configure [teachers."{name}"] in stillroom.toml.')
        address = urlsplit(endpoint)
        if endpoint and (address.scheme not in ("http", "https") or not address.hostname):
            asked.refuse("endpoint", f"is {written(endpoint)}; expected an http(s) address.")
        return name or None, Teacher(base_url=endpoint, api_key=asked.text("api_key", secret=True), model=name)

    def _student(self, is_azure: bool) -> tuple[str, str]:
        top = self._top
        if "student" in top and "student_model" in top:
            top.refuse("student", "stands beside `student_model`. Leave one out.")
        key = "student_model" if "student_model" in top or (is_azure and "student" not in top) else "student"
        given = top.text(key, needed=f"write the name of a student, such as {SCRATCH}.")
        registered = REGISTRY.fullmatch(given)
        name = registered[1] if registered else given
        students = self._settings.students
        tuned = name.startswith(config.FINE_TUNED) or ".ft-" in name
        if name and name != SCRATCH and name not in students and not tuned:
            known = ", ".join(sorted({SCRATCH, *students}))
            top.refuse(
                key,
                f"is {written(given)}, but no student is called {name!r} here. Add\n"
                f'    [students."{name}"]\n    path = "HUB-ID or folder"\n'
                f"  to stillroom.toml, or choose one of: {known}.",
            )
        return key, name

    def _suffix(self, name: str) -> str | None:
        top = self._top
        outputs = top.table("outputs")
        outputs.refuse_unknown({"registered_model"})
        model = outputs.table("registered_model")
        model.refuse_unknown({"type", "name"})
        model.choice("type", ("mlflow_model", "custom_model"), "mlflow_model")
        return sanitised(top.text("suffix") or model.text("name") or name)[:64] or None

    # --- how the student is made ------------------------------------------------------------------------

    def _best_of(self, curation: Fields) -> tuple[int, str | None]:
        if "best_of_n" not in curation:
            return 1, None
        asked = curation.table("best_of_n")
        asked.refuse_unknown({"n", "judge"})
        judge = asked.text("judge", needed="the model that scores the answers.")
        return asked.whole("n", 4, low=2, high=MOST_SAMPLES), judge or None

    def _curation(self, asked: Fields) -> Curation:
        names = Curation.__struct_fields__
        asked.refuse_unknown({*names, "best_of_n"})
        right: dict[str, Any] = {}
        for name in (name for name in names if name in asked):
            try:
                msgspec.convert({name: asked.take(name)}, Curation).check()
                right[name] = asked.take(name)
            except msgspec.ValidationError as error:
                asked.refuse(name, f"is {written(asked.take(name))}; expected {_expected(str(error))}.")
            except InvalidRequest as error:
                self._problems.add(f"curation.{name}", f"cannot be used: {error.message}")
        order = msgspec.convert(right, Curation)
        try:
            order.check()
        except InvalidRequest as error:
            self._problems.add("curation", f"cannot be used: {error.message}")
        return order

    def _order(self) -> tuple[Order, Mapping[str, Any], float | None]:
        """The fine-tuning job that is asked for, the hyperparameters that are set for it, and Azure's learning rate."""
        method = self._top.take("method")
        method = {"type": method} if isinstance(method, str) else method
        numbers, rate = self._hyperparameters()
        order = self._job(method, numbers)
        inner = method.get(order.method) if isinstance(method, dict) else None
        return order, {**((inner or {}).get("hyperparameters") or {}), **numbers}, rate

    def _hyperparameters(self) -> tuple[dict[str, Any], float | None]:
        """Under a job's own names, whichever of Azure's they have in the file."""
        given = self._top.take("hyperparameters")
        asked = self._top.table("hyperparameters")
        numbers: dict[str, Any] = {}
        rate: float | None = None
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if key == "learning_rate":
                rate = asked.number(key, 0.0, low=1e-12, high=1.0)
                continue
            name = AZURE_HYPERPARAMETERS.get(str(key), str(key))
            if name in numbers:
                asked.refuse(str(key), f"means the same as another key: {name}. Leave one out.")
            numbers[name] = _plain(value)
        if rate is not None and "learning_rate_multiplier" in numbers:
            asked.refuse("learning_rate", "stands beside learning_rate_multiplier. Leave one out.")
        return numbers, rate

    def _job(self, method: Any, numbers: Mapping[str, Any]) -> Order:
        """What a fine-tuning job would say to it, before anybody is asked for a label: to the method, to each number,
        and to all of them together."""
        if (bare := self._accepted("method", method, {})) is None:
            for name in numbers.keys() - set(Hyperparameters.__struct_fields__):
                self._accepted(f"hyperparameters.{name}", None, {name: numbers[name]})
            return parse_order(ANY_JOB)
        alone = [self._accepted(f"hyperparameters.{name}", method, {name: numbers[name]}) for name in numbers]
        return (self._accepted("hyperparameters", method, numbers) if all(alone) else None) or bare

    def _accepted(self, key: str, method: Any, numbers: Mapping[str, Any]) -> Order | None:
        try:
            return parse_order({**ANY_JOB, "method": method, "hyperparameters": dict(numbers)})
        except InvalidRequest as error:
            self._problems.add(key, f"is wrong: {error.message}")
            return None

    def _budget(self) -> int | None:
        if "budget_usd" not in self._top:
            return None
        return microusd(self._top.number("budget_usd", 0.0, low=0, high=1_000_000))

    def _check_together(self, spec: Spec, is_azure: bool) -> None:
        top = self._top
        if (
            spec.teacher is None
            and not is_azure
            and (spec.prompting.thinking is not Thinking.NONE or spec.reasoning is Reasoning.SUMMARISE)
        ):
            top.refuse("teacher", "is missing: without one there is nobody to think or to summarise.")
        if spec.method == DPO and (spec.teacher is None or spec.prompting.task is Task.CONVERSATION):
            top.refuse("method", "is dpo, which needs a teacher, and rows with one answer each. Use supervised.")
        if spec.samples > 1 and spec.inference.get("temperature") == 0:
            top.warn("curation.best_of_n", "asks at temperature 0, at which all answers are alike; set a higher one.")
        if spec.asks_logprobs and (spec.prompting.thinking is not Thinking.NONE or spec.samples > 1):
            top.refuse(
                "hyperparameters.soft_label_weight",
                "needs the teacher's own words, which enable_chain_of_thought, enable_chain_of_density and best_of_n "
                "do not leave as they were. Leave one out.",
            )


def sanitised(text: str) -> str:
    """As part of a model's or folder's name."""
    return NAME.sub("-", text).strip("-")


def _expected(problem: str) -> str:
    """What a value of another kind should have been, in words."""
    found = EXPECTED.match(problem)
    if found is None:
        return problem[:1].lower() + problem[1:]
    return " or ".join(WORDS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null")


def _minimum(task: Task | None) -> int:
    return AZURE_MATH_MINIMUM if task is Task.MATH else AZURE_MINIMUM


def _plain(value: Any) -> Any:
    """Azure's files write numbers as text."""
    found = number_of(value) if isinstance(value, str) else None
    if found is None:
        return value
    return round(found) if found == round(found) else found
