"""Hyperparameters as a job states them, and the one rule that turns "auto" into numbers.

Knows counts and what a base is like (`Origin`), but no files, no models, no torch, so that whoever asks
what "auto" would be is told by the rule that the trainer goes by.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Literal, TypeVar

from stillroom.errors import InvalidRequest

Auto = Literal["auto"]
_Choice = TypeVar("_Choice", bound=StrEnum)


class MethodType(StrEnum):
    """What a job learns by, by the name that `method.type` of a job gives it."""

    SUPERVISED = "supervised"
    """Imitation: rows are conversations, and the student learns to answer as they do."""
    DPO = "dpo"
    """Preference: rows are pairs of answers, and the student learns which is the better one."""
    ON_POLICY = "on_policy"
    """Rows are conversations; the student answers them itself, and learns what its teacher thinks of that."""


ONLY_FOR = {"soft_label_weight": (MethodType.SUPERVISED,), "beta": (MethodType.DPO,)}
"""Hyperparameters that not every method has a use for."""


class Training(StrEnum):
    """Which weights a job moves, by the name that jobs give it."""

    FULL = "full"
    ADAPTER = "lora"

    @classmethod
    def _missing_(cls, value: object) -> Training | None:
        # The first model folders had it so.
        return cls.ADAPTER if value == "adapter" else None


class LongRows(StrEnum):
    """What becomes of a row that has more tokens than the model reads."""

    FAIL = "fail"
    """The job fails and names it."""
    TRUNCATE = "truncate"
    """It is cut at its end, and the job warns with its line."""


class SystemPrompt(StrEnum):
    """What becomes of the system prompt that rows begin with."""

    KEEP = "keep"
    DROP = "drop"
    """It is the same in all rows, and they are trained without it: the student learns what it asked for."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The shape of an adapter."""

    rank: int = 16
    alpha: int = 32
    """The adapter's output is scaled by alpha / rank."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which layers get one, by their modules' names; "all-linear" is every linear layer but the output head."""


LORA_NAMES = ("lora_rank", "lora_alpha", "lora_targets")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of a base before it is opened. Without values: a model that someone else has trained."""

    from_nothing: bool = False
    """All that its weights know they know from our jobs: the built-in student, and fine-tunes of it."""
    training: Training | None = None
    """How a fine-tune of ours was trained; a job on it goes on so."""
    lora: Lora | None = None
    """The shape of its adapter, if it has one."""


BUILT_IN = Origin(from_nothing=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a way of training takes."""

    whose: str
    learning_rate: float
    """What a multiplier of 1 means."""
    epochs: int
    steps: int
    """What "auto" gives at least, of up to WHOLE_STEP rows each; larger steps count for more, and fewer do."""


FROM_NOTHING = Recipe(whose="a student that starts from nothing", learning_rate=3e-3, epochs=6, steps=450)
ADAPTER = Recipe(whose="an adapter on a trained base", learning_rate=2e-4, epochs=2, steps=150)
WHOLE_BASE = Recipe(whose="a trained base of which all weights move", learning_rate=2e-5, epochs=2, steps=150)
"""A trained base needs fewer passes and steps, and unlearns at rates that one from nothing needs."""


def sampling(recipe: Recipe) -> Recipe:
    """What learning from one's own answers takes, in what imitating does: those of a student that answers already."""
    rate = recipe.learning_rate / 10 if recipe is FROM_NOTHING else recipe.learning_rate
    return replace(recipe, whose=f"{recipe.whose} (on-policy)", learning_rate=rate, epochs=1, steps=100)


def preferring(recipe: Recipe) -> Recipe:
    """What preferring takes, in what imitating does. Pairs ask for small changes of a student that answers already,
    and at the rate of imitation it soon writes neither answer."""
    rate = recipe.learning_rate / 10
    return replace(recipe, whose=f"{recipe.whose} (preference)", learning_rate=rate, epochs=2, steps=150)


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a job trains, once its base is known."""

    training: Training
    lora: Lora | None
    """The adapter's shape; None where all weights are trained."""
    origin: Origin
    type: MethodType = MethodType.SUPERVISED

    @property
    def recipe(self) -> Recipe:
        match self.type:
            case MethodType.SUPERVISED:
                return self._imitating
            case MethodType.DPO:
                return preferring(self._imitating)
            case MethodType.ON_POLICY:
                return sampling(self._imitating)

    @property
    def _imitating(self) -> Recipe:
        if self.training is Training.ADAPTER:
            return ADAPTER
        return FROM_NOTHING if self.origin.from_nothing else WHOLE_BASE


WHOLE_STEP = 8
"""Rows."""
AUTO_STEPS_AT_MOST = 2000
"""Where the file alone has more, one pass is enough."""

AUTO_BATCH_SIZES = ((64, 4), (1000, 8))
"""The rule for "auto" batches. Below so many rows, so many in a step ..."""
AUTO_BATCH_SIZE_AT_MOST = 16
"""... and from there on so many. `reasons` tells whatever stands here."""

AUTO_BETA = 0.1
LARGEST_BETA = 2.0

AS_ASKED = "As asked for."


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """As the job's owner wrote them."""

    n_epochs: int | Auto = "auto"
    """Passes over the training file. "auto": at least 6 passes and 450 optimizer steps of up to 8 rows, or 225 of 16 (2 and
    150, or 75, for a base that is trained already), but no more passes than fit into 2,000 steps. Eleven rows get 150,
    1,000 rows 6, 10,000 rows 3."""
    batch_size: int | Auto = "auto"
    """Rows in an optimizer step. "auto": see `AUTO_BATCH_SIZES`."""
    learning_rate_multiplier: float | Auto = "auto"
    """Times the base rate: 3e-3 for a student that starts from nothing, 2e-4 for an adapter, 2e-5 where all weights
    of a trained base move; a tenth of these for preference. "auto": 1."""
    training: Training | Auto = "auto"
    """"auto": all weights of a student that starts from nothing, an adapter on any other; a fine-tune of ours goes
    on as it began."""
    lora_rank: int | Auto = "auto"
    """"auto": 16."""
    lora_alpha: int | Auto = "auto"
    """"auto": twice the rank."""
    lora_targets: str | tuple[str, ...] = "auto"
    """Names of linear modules, such as "q_proj". "auto": "all-linear"."""
    long_rows: LongRows | Auto = "auto"
    """"auto": "fail"."""
    system_prompt: SystemPrompt | Auto = "auto"
    """"auto": "keep"."""
    soft_label_weight: float | Auto = "auto"
    """From 0, only the answers' own tokens count, to 1, only the teacher's distributions, where rows have them. "auto": 0."""
    beta: float | Auto = "auto"
    """Of preference: how strongly the student is held to what it answered before, above 0, 2 at most. "auto": 0.1."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Raises InvalidRequest for a name that is none of these, and for values that mean nothing."""
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise InvalidRequest(
                f"Unknown hyperparameter '{unknown[0]}'; known are {', '.join(known)}.", param=unknown[0]
            )
        return cls(
            n_epochs=_whole(values, "n_epochs"),
            batch_size=_whole(values, "batch_size"),
            learning_rate_multiplier=_positive(values, "learning_rate_multiplier"),
            training=_one_of(values, "training", Training),
            lora_rank=_whole(values, "lora_rank"),
            lora_alpha=_whole(values, "lora_alpha"),
            lora_targets=_targets(values.get("lora_targets", "auto")),
            long_rows=_one_of(values, "long_rows", LongRows),
            system_prompt=_one_of(values, "system_prompt", SystemPrompt),
            soft_label_weight=_share(values, "soft_label_weight"),
            beta=_positive(values, "beta", most=LARGEST_BETA),
        )


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Numbers a run is made of."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    total_steps: int
    training: Training
    lora: Lora | None
    long_rows: LongRows
    system_prompt: SystemPrompt = SystemPrompt.KEEP
    soft_label_weight: float | None = 0.0
    """None where the method has none, as `beta`."""
    beta: float | None = None

    def shown(self) -> dict[str, Any]:
        """What the job has, by the names it is asked for with; an adapter's or a method's only where there is one."""
        lora = self.lora
        of_method = {"soft_label_weight": self.soft_label_weight, "beta": self.beta}
        return {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "training": self.training.value,
            **({"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_targets": lora.targets} if lora else {}),
            "long_rows": self.long_rows.value,
            "system_prompt": self.system_prompt.value,
            **{name: value for name, value in of_method.items() if value is not None},
        }


def method_of(wanted: Hyperparameters, origin: Origin, type: MethodType = MethodType.SUPERVISED) -> Method:
    """How a job on such a base trains. Raises InvalidRequest for what the base cannot have."""
    begun = Training.FULL if origin.from_nothing else origin.training
    if begun is not None and wanted.training not in ("auto", begun):
        raise InvalidRequest(_cannot_switch(wanted.training, origin), param="hyperparameters.training")
    training = begun or (Training.ADAPTER if wanted.training == "auto" else wanted.training)
    if training is Training.FULL:
        return Method(training=training, lora=None, origin=origin, type=type)
    if origin.training is None:
        return Method(training=training, lora=_new_lora(wanted), origin=origin, type=type)
    lora = origin.lora or Lora()
    _check_same_shape(wanted, lora)
    return Method(training=training, lora=lora, origin=origin, type=type)


def without_effect(wanted: Hyperparameters, method: Method) -> list[str]:
    """What was asked for and changes nothing, one sentence each."""
    given = {each.name for each in fields(wanted) if getattr(wanted, each.name) != "auto"}
    of_lora = [name for name in LORA_NAMES if name in given and method.lora is None]
    of_others = [name for name, types in ONLY_FOR.items() if name in given and method.type not in types]
    return [
        *_no_effect(of_lora, "all weights are trained, without an adapter"),
        *_no_effect(of_others, f"the job's method is {method.type.value}"),
    ]


def _no_effect(names: Sequence[str], why: str) -> list[str]:
    written = ", ".join(f"'{name}'" for name in names)
    return [f"{written} {'has' if len(names) == 1 else 'have'} no effect: {why}."] if names else []


def resolve(wanted: Hyperparameters, *, num_examples: int, method: Method) -> Resolved:
    """The numbers for a file of `num_examples` rows."""
    batch = _auto_batch_size(num_examples) if wanted.batch_size == "auto" else wanted.batch_size
    batch = min(batch, num_examples)
    steps = steps_per_epoch(num_examples, batch)
    epochs = _auto_epochs(steps, batch, method.recipe) if wanted.n_epochs == "auto" else wanted.n_epochs
    multiplier = 1.0 if wanted.learning_rate_multiplier == "auto" else wanted.learning_rate_multiplier
    return Resolved(
        n_epochs=epochs,
        batch_size=batch,
        learning_rate_multiplier=multiplier,
        learning_rate=method.recipe.learning_rate * multiplier,
        total_steps=steps * epochs,
        training=method.training,
        lora=method.lora,
        long_rows=long_rows_of(wanted),
        system_prompt=SystemPrompt.KEEP if wanted.system_prompt == "auto" else wanted.system_prompt,
        soft_label_weight=soft_label_weight_of(wanted) if _has("soft_label_weight", method) else None,
        beta=beta_of(wanted) if _has("beta", method) else None,
    )


def long_rows_of(wanted: Hyperparameters) -> LongRows:
    return LongRows.FAIL if wanted.long_rows == "auto" else wanted.long_rows


def soft_label_weight_of(wanted: Hyperparameters) -> float:
    return 0.0 if wanted.soft_label_weight == "auto" else wanted.soft_label_weight


def beta_of(wanted: Hyperparameters) -> float:
    return AUTO_BETA if wanted.beta == "auto" else wanted.beta


def _has(name: str, method: Method) -> bool:
    return method.type in ONLY_FOR[name]


def learning_rate_at(step: int, *, total_steps: int, peak: float) -> float:
    """The rate of step `step` (from 1): 5 % of all steps up, then straight down to zero after the last."""
    warm_up = max(1, round(0.05 * total_steps))
    if step <= warm_up:
        return peak * step / warm_up
    return peak * (total_steps - step + 1) / (total_steps - warm_up + 1)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """How many batches a pass over the examples has."""
    return -(-num_examples // batch_size)


def reasons(wanted: Hyperparameters, numbers: Resolved, *, num_examples: int, method: Method) -> dict[str, str]:
    """How `resolve` came to each value, one sentence each, by the hyperparameter's name."""
    recipe = method.recipe
    why = {
        "n_epochs": _why_epochs(numbers, num_examples, recipe) if wanted.n_epochs == "auto" else AS_ASKED,
        "batch_size": _why_batch_size(wanted, numbers, num_examples),
        "learning_rate_multiplier": _why_rate(wanted, numbers, recipe),
        "training": _why_training(method) if wanted.training == "auto" else AS_ASKED,
        **_why_lora(wanted, method),
        **{name: reason if getattr(wanted, name) == "auto" else AS_ASKED for name, reason in _BY_DEFAULT.items()},
    }
    return {name: why[name] for name in numbers.shown()}


_BY_DEFAULT = {
    "long_rows": "fail: no row is cut unless that is asked for.",
    "system_prompt": "keep: rows are trained with their system prompt unless that is asked for.",
    "soft_label_weight": "0: answers are learned as they were said, unless more is asked for.",
    "beta": f"{AUTO_BETA:g}: the usual hold on what the student answered before.",
}


def _why_training(method: Method) -> str:
    if method.origin.training is not None:
        return f"{method.training.value}: the model goes on as it began."
    if method.origin.from_nothing:
        return f"{method.training.value}: {method.recipe.whose} has no weights to put an adapter on."
    return f"{method.training.value}: {method.recipe.whose} is small and keeps what the base knows."


def _why_lora(wanted: Hyperparameters, method: Method) -> dict[str, str]:
    if method.origin.lora is not None:
        return dict.fromkeys(LORA_NAMES, "The adapter goes on in the shape it has.")
    defaults = {
        "lora_rank": f"{Lora.rank}: the usual size for one task.",
        "lora_alpha": "Twice the rank, so that the adapter counts alike at every rank.",
        "lora_targets": "all-linear: every linear layer but the output head.",
    }
    return {name: why if getattr(wanted, name) == "auto" else AS_ASKED for name, why in defaults.items()}


def _why_epochs(numbers: Resolved, num_examples: int, recipe: Recipe) -> str:
    steps = numbers.total_steps // numbers.n_epochs
    a_pass = f"a pass over {num_examples:,} examples in batches of {numbers.batch_size} is {_steps(steps)}"
    passes = f"{numbers.n_epochs} {'pass' if numbers.n_epochs == 1 else 'passes'}"
    fewest = _fewest_steps(recipe, numbers.batch_size)
    if numbers.n_epochs < max(recipe.epochs, -(-fewest // steps)):
        return f"{passes}: {a_pass}, and more passes would not stay within {AUTO_STEPS_AT_MOST:,} steps."
    if numbers.n_epochs > recipe.epochs:
        return f"{passes}: {a_pass}, and {recipe.whose} gets at least {fewest} steps."
    return f"{passes}, the fewest that {recipe.whose} gets: {a_pass}, {_steps(numbers.total_steps)} in all."


def _why_batch_size(wanted: Hyperparameters, numbers: Resolved, num_examples: int) -> str:
    size = _auto_batch_size(num_examples) if wanted.batch_size == "auto" else wanted.batch_size
    if numbers.batch_size < size:
        return f"{numbers.batch_size}: there are no more examples."
    if wanted.batch_size != "auto":
        return AS_ASKED
    below = next((rows for rows, size in AUTO_BATCH_SIZES if num_examples < rows), None)
    found = f"{numbers.batch_size} examples in a step"
    if below is None:
        return f"{found}: so many from {AUTO_BATCH_SIZES[-1][0]:,} examples on."
    return f"{found}: so many below {below:,} examples."


def _why_rate(wanted: Hyperparameters, numbers: Resolved, recipe: Recipe) -> str:
    peak = f"the rate rises to {numbers.learning_rate:g} and falls to zero"
    if wanted.learning_rate_multiplier != "auto":
        return f"{AS_ASKED[:-1]}: {peak}."
    return f"1, the rate that {recipe.whose} is made for: {peak}."


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"


def _auto_batch_size(num_examples: int) -> int:
    return next((size for rows, size in AUTO_BATCH_SIZES if num_examples < rows), AUTO_BATCH_SIZE_AT_MOST)


def _fewest_steps(recipe: Recipe, batch: int) -> int:
    return recipe.steps * WHOLE_STEP // max(WHOLE_STEP, batch)


def _auto_epochs(steps: int, batch: int, recipe: Recipe) -> int:
    wanted = max(recipe.epochs, -(-_fewest_steps(recipe, batch) // steps))
    return max(1, min(wanted, AUTO_STEPS_AT_MOST // steps))


def _new_lora(wanted: Hyperparameters) -> Lora:
    rank = Lora.rank if wanted.lora_rank == "auto" else wanted.lora_rank
    alpha = 2 * rank if wanted.lora_alpha == "auto" else wanted.lora_alpha
    targets = Lora.targets if wanted.lora_targets == "auto" else wanted.lora_targets
    return Lora(rank=rank, alpha=alpha, targets=targets)


def _cannot_switch(asked: str, origin: Origin) -> str:
    if origin.training is Training.ADAPTER:
        return (
            f"'training' is {str(asked)!r}, but the model is an adapter on its base and goes on as one. Leave "
            "'training' out, or fine-tune the base model itself with \"full\"."
        )
    if origin.from_nothing:
        return (
            f"'training' is {str(asked)!r}, but a student that starts from nothing trains all its weights. Leave "
            "'training' out, or choose a base model that has weights."
        )
    return (
        f"'training' is {str(asked)!r}, but the model was trained with all its weights and goes on so. Leave "
        "'training' out, or fine-tune its base model with \"lora\"."
    )


def _check_same_shape(wanted: Hyperparameters, lora: Lora) -> None:
    for name, has in zip(LORA_NAMES, (lora.rank, lora.alpha, lora.targets), strict=True):
        asked = getattr(wanted, name)
        if asked not in ("auto", has):
            raise InvalidRequest(
                f"'{name}' is {_written(asked)}, but the model's adapter has {_written(has)} and goes on with it. "
                f"Leave '{name}' out, or fine-tune the base model.",
                param=f"hyperparameters.{name}",
            )


def _written(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _one_of(values: Mapping[str, Any], name: str, kind: type[_Choice]) -> _Choice | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    if value not in [each.value for each in kind]:
        allowed = ", ".join(f'"{each.value}"' for each in kind)
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or one of {allowed}.", param=name)
    return kind(value)


def _targets(value: Any) -> str | tuple[str, ...]:
    if value in ("auto", Lora.targets):
        return str(value)
    is_names = (
        isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)
    )
    if not is_names or not value:
        raise InvalidRequest(
            f"'lora_targets' is {value!r}; it must be \"all-linear\" or a list of module names.", param="lora_targets"
        )
    return tuple(value)


def _whole(values: Mapping[str, Any], name: str) -> int | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    # bool is an int to Python; JSON true is no number.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or a whole number from 1.", param=name)
    return value


def _positive(values: Mapping[str, Any], name: str, *, most: float = sys.float_info.max) -> float | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    if not _is_number(value) or not 0 < value <= most:
        up_to = f", {most:g} at most" if most < sys.float_info.max else ""
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or a number above 0{up_to}.", param=name)
    return float(value)


def _share(values: Mapping[str, Any], name: str) -> float | Auto:
    value = values.get(name, "auto")
    if value == "auto":
        return "auto"
    if not _is_number(value) or not 0 <= value <= 1:
        raise InvalidRequest(f"'{name}' is {value!r}; it must be \"auto\" or a number from 0 to 1.", param=name)
    return float(value)


def _is_number(value: Any) -> bool:
    # bool is an int to Python; JSON true is no number.
    return isinstance(value, int | float) and not isinstance(value, bool)
