"""A grader as it is asked for: every field of its JSON, checked and compiled.

Six types are known. An eval's testing criteria take five of them (a `multi` grader only grades in
`graders.run`) and want a name, and a `pass_threshold` for text similarity.
"""

from __future__ import annotations

import ast
import enum
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.errors import InvalidRequest
from stillroom.graders.fields import Fields, is_number
from stillroom.graders.formula import Formula, compile_formula
from stillroom.graders.subject import Subject
from stillroom.graders.template import Template

MOST_SOURCE_BYTES = 256_000
MOST_GRADERS = 64
ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = ("input_text", "output_text", "text")
NO_TEXT_PARTS = ("input_image", "input_audio", "image_url")
# A grader's own word, and chat completions' word for it.
SAMPLING = {
    "max_completions_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_completion_tokens",
    "max_tokens": "max_completion_tokens",
    "seed": "seed",
    "temperature": "temperature",
    "top_p": "top_p",
    "reasoning_effort": "reasoning_effort",
}
HALF = 0.5


class Kind(enum.StrEnum):
    """A grader's `type`."""

    STRING_CHECK = "string_check"
    TEXT_SIMILARITY = "text_similarity"
    LABEL_MODEL = "label_model"
    SCORE_MODEL = "score_model"
    PYTHON = "python"
    MULTI = "multi"


class Operation(enum.StrEnum):
    """How string_check compares."""

    EQ = "eq"
    NE = "ne"
    LIKE = "like"
    ILIKE = "ilike"


class Metric(enum.StrEnum):
    """How text_similarity compares."""

    COSINE = "cosine"
    FUZZY_MATCH = "fuzzy_match"
    BLEU = "bleu"
    GLEU = "gleu"
    METEOR = "meteor"
    ROUGE_1 = "rouge_1"
    ROUGE_2 = "rouge_2"
    ROUGE_3 = "rouge_3"
    ROUGE_4 = "rouge_4"
    ROUGE_5 = "rouge_5"
    ROUGE_L = "rouge_l"


@dataclass(frozen=True, kw_only=True)
class StringCheck:
    name: str
    operation: Operation
    input: Template
    reference: Template
    kind: Kind = Kind.STRING_CHECK


@dataclass(frozen=True, kw_only=True)
class TextSimilarity:
    name: str
    metric: Metric
    input: Template
    reference: Template
    pass_threshold: float
    kind: Kind = Kind.TEXT_SIMILARITY


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with templates: one, or one for each text part it was given in."""

    role: str
    parts: tuple[Template, ...]

    def render(self, subject: Subject) -> dict[str, Any]:
        """The message as chat completions have it. Raises VariableMissing."""
        texts = [part.render(subject) for part in self.parts]
        content = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
        return {"role": self.role, "content": content}


@dataclass(frozen=True, kw_only=True)
class LabelModel:
    """`sampling` is in chat completions' words."""

    name: str
    model: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    passing_labels: frozenset[str]
    sampling: Mapping[str, Any]
    kind: Kind = Kind.LABEL_MODEL


@dataclass(frozen=True, kw_only=True)
class ScoreModel:
    """`low` and `high` are its range; `sampling` is in chat completions' words."""

    name: str
    model: str
    messages: tuple[Message, ...]
    low: float
    high: float
    pass_threshold: float
    sampling: Mapping[str, Any]
    kind: Kind = Kind.SCORE_MODEL


@dataclass(frozen=True, kw_only=True)
class PythonCode:
    name: str
    source: str
    image_tag: str | None
    pass_threshold: float
    kind: Kind = Kind.PYTHON


@dataclass(frozen=True, kw_only=True)
class Multi:
    """`graders` by the names their scores are told under; `variables` are the formula's, each with
    the grader it stands for."""

    name: str
    graders: Mapping[str, SingleGrader]
    variables: Mapping[str, str]
    formula: Formula
    pass_threshold: float
    kind: Kind = Kind.MULTI


SingleGrader = StringCheck | TextSimilarity | LabelModel | ScoreModel | PythonCode
Grader = SingleGrader | Multi


def read(order: Any, *, param: str, in_eval: bool = False) -> Grader:
    """The grader in this JSON. Raises InvalidRequest whose param is below `param`."""
    given = Fields(order, param)
    kind = given.choice("type", Kind)
    name = given.text("name") if in_eval or "name" in given.values else kind.value
    match kind:
        case Kind.STRING_CHECK:
            return StringCheck(
                name=name,
                operation=given.choice("operation", Operation),
                input=given.template("input"),
                reference=given.template("reference"),
            )
        case Kind.TEXT_SIMILARITY:
            return _text_similarity(given, name, in_eval)
        case Kind.LABEL_MODEL:
            return _label_model(given, name)
        case Kind.SCORE_MODEL:
            return _score_model(given, name)
        case Kind.PYTHON:
            return _python(given, name)
        case Kind.MULTI:
            if in_eval:
                raise given.wrong("type", "'multi' cannot be a testing criterion; list its graders one by one instead")
            return _multi(given, name)


def models_of(grader: Grader) -> set[str]:
    """The models that a grader asks."""
    if isinstance(grader, Multi):
        return {model for part in grader.graders.values() for model in models_of(part)}
    return {grader.model} if isinstance(grader, (LabelModel, ScoreModel)) else set()


def runs_python(grader: Grader) -> bool:
    """Whether a grader runs somebody's Python."""
    if isinstance(grader, Multi):
        return any(map(runs_python, grader.graders.values()))
    return isinstance(grader, PythonCode)


def _text_similarity(given: Fields, name: str, in_eval: bool) -> TextSimilarity:
    metric = given.choice("evaluation_metric", Metric)
    if in_eval:
        given.required("pass_threshold")
    return TextSimilarity(
        name=name,
        metric=metric,
        input=given.template("input"),
        reference=given.template("reference"),
        pass_threshold=given.number("pass_threshold", HALF, low=0, high=1),
    )


def _label_model(given: Fields, name: str) -> LabelModel:
    labels, passing = given.texts("labels"), given.texts("passing_labels", may_be_empty=True)
    if unknown := [label for label in passing if label not in labels]:
        raise given.wrong("passing_labels", f"{unknown[0]!r} is none of the labels {', '.join(map(repr, labels))}")
    return LabelModel(
        name=name,
        model=given.text("model"),
        messages=_messages(given.required("input"), f"{given.param}.input"),
        labels=labels,
        passing_labels=frozenset(passing),
        sampling=_sampling(given),
    )


def _score_model(given: Fields, name: str) -> ScoreModel:
    low, high = _range(given)
    return ScoreModel(
        name=name,
        model=given.text("model"),
        messages=_messages(given.required("input"), f"{given.param}.input"),
        low=low,
        high=high,
        pass_threshold=given.number("pass_threshold", (low + high) / 2, low=low, high=high),
        sampling=_sampling(given),
    )


def _range(given: Fields) -> tuple[float, float]:
    value = given.values.get("range")
    if value is None:
        return 0.0, 1.0
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)) or not value[0] < value[1]:
        raise given.wrong("range", f"{value!r} is no range; give two numbers, the lower one first")
    return float(value[0]), float(value[1])


def _sampling(given: Fields) -> dict[str, Any]:
    value = given.values.get("sampling_params")
    if value is None:
        return {}
    chosen = Fields(value, f"{given.param}.sampling_params")
    sampling: dict[str, Any] = {}
    for name, wanted in chosen.values.items():
        if name not in SAMPLING:
            raise chosen.wrong(name, f"it is unknown; known are {', '.join(SAMPLING)}", code="unknown_parameter")
        if wanted is None:
            continue
        if why := _wrong_sampling(SAMPLING[name], wanted):
            raise chosen.wrong(name, f"{wanted!r} is {why}")
        sampling[SAMPLING[name]] = wanted
    return sampling


def _wrong_sampling(name: str, value: Any) -> str | None:
    if name == "reasoning_effort":
        return None if isinstance(value, str) and value else "no string"
    if name in ("temperature", "top_p"):
        return None if is_number(value) and value >= 0 else "no number from 0 up"
    if not isinstance(value, int) or isinstance(value, bool):
        return "no whole number"
    return None if name == "seed" or value >= 1 else "less than 1"


def _messages(value: Any, param: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(
            f"Invalid '{param}': it must be a list of messages, each with a role and a content.", param=param
        )
    return tuple(_message(Fields(each, f"{param}[{i}]")) for i, each in enumerate(value))


def _message(given: Fields) -> Message:
    role = given.text("role")
    if role not in ROLES:
        raise given.wrong("role", f"{role!r} is none of {', '.join(ROLES)}")
    content, param = given.required("content"), f"{given.param}.content"
    if not isinstance(content, list):
        return Message(role=role, parts=(_part(content, param),))
    if not content:
        raise given.wrong("content", "it is an empty list; give a text")
    return Message(role=role, parts=tuple(_part(each, f"{param}[{i}]") for i, each in enumerate(content)))


def _part(value: Any, param: str) -> Template:
    if isinstance(value, str):
        return Template.read(value, param=param)
    given = Fields(value, param)
    kind = given.text("type")
    if kind in NO_TEXT_PARTS:
        raise given.wrong("type", f"{kind!r} is not supported: judges here read text; describe it in an input_text")
    if kind not in TEXT_PARTS:
        raise given.wrong("type", f"{kind!r} is none of input_text, output_text")
    return given.template("text")


def _python(given: Fields, name: str) -> PythonCode:
    source = given.text("source")
    if len(source.encode()) >= MOST_SOURCE_BYTES:
        raise given.wrong("source", f"it has {len(source.encode())} bytes; it must have less than {MOST_SOURCE_BYTES}")
    try:
        with warnings.catch_warnings():
            # A doubtful escape such as "\d" is the grader's own affair.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "it"
        raise given.wrong("source", f"{where} is no Python: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise given.wrong("source", f"it cannot be read as Python: {error or 'it is too deeply nested'}") from error
    _check_grade(given, tree)
    tag = given.values.get("image_tag")
    return PythonCode(
        name=name,
        source=source,
        image_tag=None if tag is None else given.text("image_tag"),
        pass_threshold=given.number("pass_threshold", HALF),
    )


def _check_grade(given: Fields, tree: ast.Module) -> None:
    """`grade` may be a function, or a name that anything at the top level binds."""
    found = [node for node in ast.walk(tree) if _binds_grade(node)]
    if not found:
        raise given.wrong("source", "it defines no function 'grade'; write def grade(sample, item): ...")
    for node in found:
        if isinstance(node, ast.AsyncFunctionDef):
            raise given.wrong("source", "its 'grade' is async; write a plain def grade(sample, item): ...")
    (first, *others) = found
    if not others and first in tree.body and isinstance(first, ast.FunctionDef) and not _takes_two(first):
        raise given.wrong("source", "its 'grade' cannot be called with two values; write def grade(sample, item): ...")


def _takes_two(function: ast.FunctionDef) -> bool:
    """Whether it can be called with two positional arguments, as far as one can see: a decorator may change that."""
    given = function.args
    positional = len(given.posonlyargs) + len(given.args)
    enough = positional >= 2 or given.vararg is not None
    return bool(function.decorator_list) or (
        enough and positional - len(given.defaults) <= 2 and None not in given.kw_defaults
    )


def _binds_grade(node: ast.AST) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node.name == "grade"
    if isinstance(node, ast.alias):
        return (node.asname or node.name) in ("grade", "*")
    return isinstance(node, ast.Name) and node.id == "grade" and isinstance(node.ctx, ast.Store)


def _multi(given: Fields, name: str) -> Multi:
    graders = _parts(given)
    variables = _variables(given, graders)
    formula = given.text("calculate_output")
    return Multi(
        name=name,
        graders=graders,
        variables=variables,
        formula=compile_formula(formula, variables, param=f"{given.param}.calculate_output"),
        pass_threshold=given.number("pass_threshold", HALF),
    )


def _parts(given: Fields) -> dict[str, SingleGrader]:
    """The graders by key; those of a list, and a single one, by their names."""
    value, param = given.required("graders"), f"{given.param}.graders"
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        value = [value]
    if not isinstance(value, (Mapping, list)) or not 1 <= len(value) <= MOST_GRADERS:
        raise given.wrong("graders", f"it must be an object of name to grader, with 1 to {MOST_GRADERS} graders")
    graders: dict[str, SingleGrader] = {}
    pairs = value.items() if isinstance(value, Mapping) else ((None, each) for each in value)
    for i, (key, each) in enumerate(pairs):
        place = f"{param}[{i}]" if key is None else f"{param}.{key}"
        part = read(each, param=place)
        if isinstance(part, Multi):
            raise InvalidRequest("A multi grader cannot hold another; write one formula.", param=f"{place}.type")
        if (key or part.name) in graders:
            raise given.wrong("graders", f"two graders are called {part.name!r}; give each its own name")
        graders[key or part.name] = part
    return graders


def _variables(given: Fields, graders: Mapping[str, SingleGrader]) -> dict[str, str]:
    """What a formula may call a score: the key, the grader's name as an identifier, and `<type>_score`
    where only one grader has that type. Keys win."""
    kinds = Counter(part.kind for part in graders.values())
    names = Counter(_identifier(part.name) for part in graders.values())
    variables: dict[str, str] = {}
    for key, part in graders.items():
        if kinds[part.kind] == 1:
            variables[f"{part.kind.value}_score"] = key
    for key, part in graders.items():
        if names[_identifier(part.name)] == 1:
            variables[_identifier(part.name)] = key
    for key in graders:
        variables[_identifier(key)] = key
    if len({_identifier(key) for key in graders}) < len(graders):
        raise given.wrong("graders", "two of its names are the same when written as an identifier; rename one")
    return variables


def _identifier(name: str) -> str:
    """`Example string check` -> `Example_string_check`."""
    written = re.sub(r"\W+", "_", name).strip("_")
    return f"_{written}" if not written or written[0].isdigit() else written
