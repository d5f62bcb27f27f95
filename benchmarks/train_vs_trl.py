"""Useful tokens per CPU second and peak memory of training: ours beside TRL's SFTTrainer.

The same random Qwen3-shaped model is trained on the same rows three times: by us with shared prefixes,
by us with padded batches, and by TRL's SFTTrainer at the settings that are fastest for it, found first
by trying them (batch against accumulation, padding, no padding, packing, grouping by length). The
optimizer (AdamW), its schedule, the clipping and the arithmetic (float32, no checkpointing) are the
same; the rows of a step too, unless the setting that is fastest for TRL chooses them itself. Every
training is a process of its own on one thread; they take turns, and the median round counts.

Useful tokens are all tokens of all rows, each row counted whole, however many of them were computed.
Nothing but the steps is measured: not the imports, the data, the model or the validation at the end.
Four shapes of data: a system prompt of 700 tokens with answers of 50 to 500; the same prompt with short
labels; conversations stored turn by turn, each with its history; short prompts.

TRL is needed beside stillroom, in an environment of its own so that ours stays as it is:

    python3 -m venv trl && trl/bin/pip install -c requirements.lock -e '.[students]' 'trl==1.16.*'
    trl/bin/python benchmarks/train_vs_trl.py --fast

On a GPU (`--device cuda`, sizes 0.6b, 1.7b and 8b) products are computed in bfloat16, the seconds are those of
the clock, memory is the device's, and TRL uses Liger's kernels when they are installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

START, END, NEWLINE, PAD, FIRST_WORD = 0, 1, 2, 3, 16
CONTEXT = 8192
OURS, PADDED = "ours", "our padded"
LENGTHS_VARY = 0.6  # standard deviation of their logarithm
CLOSE = 0.03  # TRL settings that are so little slower than its fastest are as good; the one with least memory is taken
MISSING = "TRL is not installed here. Get it into an environment of its own:\n\n" + "\n".join(
    line for line in (__doc__ or "").splitlines() if line.startswith("    ")
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model of Qwen3's architecture."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    inner: int
    vocabulary: int
    tied: bool = True
    learning_rate: float = 1e-3


SIZES = {
    "5m": Size(width=256, layers=4, heads=4, key_value_heads=2, head_width=64, inner=768, vocabulary=8192),
    "50m": Size(
        width=512, layers=11, heads=8, key_value_heads=4, head_width=64, inner=1536, vocabulary=32768,
        learning_rate=5e-4,
    ),
    "0.6b": Size(
        width=1024, layers=28, heads=16, key_value_heads=8, head_width=128, inner=3072, vocabulary=151_936,
        learning_rate=1e-4,
    ),
    "1.7b": Size(
        width=2048, layers=28, heads=16, key_value_heads=8, head_width=128, inner=6144, vocabulary=151_936,
        learning_rate=1e-4,
    ),
    "8b": Size(
        width=4096, layers=36, heads=32, key_value_heads=8, head_width=128, inner=12_288, vocabulary=151_936,
        tied=False, learning_rate=5e-5,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How long the parts of a row are, in tokens; `turns` of a conversation make as many rows."""

    system: int
    question: tuple[int, int, int]
    """Least, usual and most; the usual is the median, and few come near the most."""
    answer: tuple[int, int, int]
    turns: int = 1


SHAPES = {
    "long answers": Shape(system=700, question=(10, 15, 25), answer=(50, 130, 500)),
    "short labels": Shape(system=700, question=(30, 85, 250), answer=(2, 4, 8)),
    "multi-turn": Shape(system=300, question=(15, 35, 70), answer=(40, 90, 250), turns=4),
    "short prompts": Shape(system=25, question=(15, 35, 70), answer=(30, 80, 200)),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every variant is given alike."""

    size: str
    shape: str
    batch: int
    steps: int
    valid: int
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True)
class TrlSetting:
    """What TRL is free to choose without changing the model, the data or the number of steps."""

    together: int
    """Rows that are computed at once; the rest of a step is accumulated."""
    layout: str = "padded"
    """padded, flat (padding-free) or packed."""
    by_length: bool = False
    """Rows are grouped by TRL's own sampler instead of standing in our order."""

    def __str__(self) -> str:
        return f"{self.layout}, {self.together} at once{', by length' if self.by_length else ''}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one training took and reached."""

    seconds: float
    """Of CPU; on a GPU, of the clock."""
    useful_tokens: int
    peak_bytes: int
    loaded_bytes: int
    """What the process held when the model was there and nothing had been trained."""
    valid_loss: float

    @property
    def speed(self) -> float:
        return self.useful_tokens / self.seconds

    @property
    def training_bytes(self) -> int:
        return self.peak_bytes - self.loaded_bytes


@dataclass(frozen=True, kw_only=True)
class Result:
    """The rounds of one shape at one size."""

    plan: Plan
    bound: float
    setting: TrlSetting
    tried: Mapping[TrlSetting, Figures]
    """Every setting of TRL's that was tried, and came to its end."""
    rounds: list[dict[str, Figures]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=None)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="rows in an optimizer step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--valid", type=int, default=16, help="rows of the validation at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trl", help="use this setting and try none: LAYOUT:ROWS or LAYOUT:ROWS:by-length")
    parser.add_argument("--tune-steps", type=int, default=1, help="steps that each of TRL's settings is tried for")
    parser.add_argument("--fast", action="store_true", help="5m alone, one round of two steps, the likeliest settings")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="append every figure to this file, one object a line")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(*map(json.loads, asked.child))
        return
    if find_spec("trl") is None:
        sys.exit(MISSING)
    if asked.fast:
        asked.repeats, asked.steps = 1, 2
    results = []
    for size in asked.sizes or (["0.6b"] if asked.device == "cuda" else ["5m"] if asked.fast else ["5m", "50m"]):
        for shape in asked.shapes:
            plan = Plan(
                size=size, shape=shape, batch=asked.batch, steps=asked.steps, valid=asked.valid, seed=asked.seed,
                device=asked.device,
            )  # fmt: skip
            tried = {} if asked.trl else _tried(plan, asked.tune_steps, few=asked.fast)
            setting = _parsed(asked.trl) if asked.trl else _fastest(tried)
            rounds = _rounds(plan, setting, asked.repeats, asked.json)
            results.append(Result(plan=plan, bound=_bound(plan), setting=setting, tried=tried, rounds=rounds))
    _print(results)


# --- taking turns ------------------------------------------------------------------------------------------


def _rounds(plan: Plan, setting: TrlSetting, repeats: int, log: Path | None) -> list[dict[str, Figures]]:
    variants = {"TRL": setting, PADDED: None, OURS: None}
    rounds: list[dict[str, Figures]] = []
    for number in range(repeats):
        rounds.append({})
        for name in variants if number % 2 == 0 else reversed(variants):
            rounds[-1][name] = figures = _run(plan, name, variants[name])
            _say(f"{plan.size}, {plan.shape}, round {number + 1}, {name}: {_told(figures)}")
            if log:
                entry = {"plan": asdict(plan), "variant": name, "setting": str(setting), **asdict(figures)}
                with log.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
    return rounds


def _tried(plan: Plan, steps: int, *, few: bool) -> dict[TrlSetting, Figures]:
    """What TRL reaches at each setting it could be given. One that fails, for want of memory say, is none to choose."""
    tried: dict[TrlSetting, Figures] = {}
    for setting in _settings(plan.batch, few=few):
        try:
            tried[setting] = _run(replace(plan, steps=steps, valid=1), "TRL", setting)
        except subprocess.CalledProcessError:
            _say(f"{plan.size}, {plan.shape}, TRL {setting}: failed")
        else:
            _say(f"{plan.size}, {plan.shape}, TRL {setting}: {_told(tried[setting])}")
    return tried


def _fastest(tried: Mapping[TrlSetting, Figures]) -> TrlSetting:
    best = max(figures.speed for figures in tried.values())
    close = [setting for setting, figures in tried.items() if figures.speed >= best * (1 - CLOSE)]
    return min(close, key=lambda setting: tried[setting].peak_bytes)


def _settings(batch: int, *, few: bool) -> Iterator[TrlSetting]:
    together = [rows for rows in (1, 2, 4, 8, 16, 32) if rows <= batch and batch % rows == 0]
    yield from (TrlSetting(together=rows) for rows in (together[:3] if few else together))
    if not few:
        yield TrlSetting(together=4, by_length=True)
        yield from (TrlSetting(together=rows, layout="flat") for rows in (2, 4))
        yield from (TrlSetting(together=rows, layout="packed") for rows in (1, 2))


def _parsed(text: str) -> TrlSetting:
    layout, together, *more = text.split(":")
    return TrlSetting(together=int(together), layout=layout, by_length=bool(more))


def _run(plan: Plan, variant: str, setting: TrlSetting | None) -> Figures:
    """One training in a process of its own, on one thread."""
    task = {"plan": asdict(plan), "variant": variant, "setting": asdict(setting) if setting else None}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--child", json.dumps(task), json.dumps(str(report))]
        threads = {"OMP_NUM_THREADS": "1"} if plan.device == "cpu" else {}
        environment = os.environ | threads | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            _say(done.stderr[-2000:])
            done.check_returncode()
        return Figures(**json.loads(report.read_text()))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _told(figures: Figures) -> str:
    return (
        f"{figures.speed:,.0f} tokens/s, peak {figures.peak_bytes / 1e6:,.0f} MB "
        f"({figures.training_bytes / 1e6:+,.0f}), validation {figures.valid_loss:.5f}"
    )


# --- the table ---------------------------------------------------------------------------------------------


def _print(results: Sequence[Result]) -> None:
    cuda = results[0].plan.device == "cuda"
    print(f"\nUseful tokens per {'second' if cuda else 'CPU second'}; medians of rounds, least and most in brackets.\n")
    print("| model, shape, rows a step | TRL at | TRL | our padded | ours | ours / TRL | padded / TRL | ours at most |")
    print("|---|---|---|---|---|---|---|---|")
    for result in results:
        speeds = [f"{_median(result, lambda r, n=name: r[n].speed):,.0f}" for name in ("TRL", PADDED, OURS)]
        ratios = [_spread(result, lambda r, n=name: r[n].speed / r["TRL"].speed) for name in (OURS, PADDED)]
        print(
            f"| {_named(result)} | {result.setting} | {' | '.join([*speeds, *ratios])} | {result.bound:.1f}x padded |"
        )
    print("\nPeak memory in MB, in brackets above what was held before the first step; validation loss at the end.\n")
    print(
        "| model, shape, rows a step | TRL | our padded | ours | ours / TRL | above | loss: TRL | our padded | ours |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for result in results:
        peaks = [_memory(result, name) for name in ("TRL", PADDED, OURS)]
        whole = _spread(result, lambda r: r[OURS].peak_bytes / r["TRL"].peak_bytes)
        above = _spread(result, lambda r: r[OURS].training_bytes / r["TRL"].training_bytes)
        losses = [f"{_median(result, lambda r, n=name: r[n].valid_loss):.5f}" for name in ("TRL", PADDED, OURS)]
        print(f"| {_named(result)} | {' | '.join([*peaks, whole, above, *losses])} |")
    _print_tried(results)
    if cuda:
        _print_ceiling(results)


def _print_tried(results: Sequence[Result]) -> None:
    """What TRL was given to choose from, each for a step or so."""
    if any(result.tried for result in results):
        print("\nTRL's settings, tried once each: useful tokens a second and peak memory.\n")
    for result in results:
        reached = (
            f"{setting}: {each.speed:,.0f}, {each.peak_bytes / 1e6:,.0f} MB" for setting, each in result.tried.items()
        )
        if result.tried:
            print(f"- {_named(result)}: {'; '.join(reached)}")


def _print_ceiling(results: Sequence[Result]) -> None:
    """How much of what a large matrix product reaches goes into computed tokens."""
    ceiling = _ceiling()
    print(f"\nA bfloat16 product of 8,192 x 8,192 matrices reaches {ceiling / 1e12:.0f} TFLOP/s; of that:\n")
    for result in results:
        operations = 6 * _matrix_parameters(SIZES[result.plan.size])
        shares = {
            name: _median(result, lambda r, n=name: r[n].speed) * operations / ceiling for name in ("TRL", PADDED, OURS)
        }
        shares[OURS] /= result.bound
        print(f"- {_named(result)}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))


def _named(result: Result) -> str:
    return f"{result.plan.size}, {result.plan.shape}, {result.plan.batch}"


def _median(result: Result, figure: Callable[[dict[str, Figures]], float]) -> float:
    return statistics.median(map(figure, result.rounds))


def _spread(result: Result, figure: Callable[[dict[str, Figures]], float]) -> str:
    values = sorted(map(figure, result.rounds))
    return f"**{statistics.median(values):.2f}** ({values[0]:.2f} to {values[-1]:.2f})"


def _memory(result: Result, name: str) -> str:
    whole = _median(result, lambda r: r[name].peak_bytes) / 1e6
    return f"{whole:,.0f} ({_median(result, lambda r: r[name].training_bytes) / 1e6:+,.0f})"


# --- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """Token ids, and which of them are trained."""

    ids: list[int]
    mask: list[int]


class Writer:
    """Words that follow one another as in a language: few are frequent, and each has its usual successors."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self._words = range(FIRST_WORD, vocabulary)
        self._cumulative = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))
        self._follows = {word: self._drawn(4) for word in self._words}

    def words(self, least: int, usual: int, most: int) -> list[int]:
        said = self._drawn(1)
        length = round(self._draw.lognormvariate(math.log(usual), LENGTHS_VARY))
        for _ in range(min(max(length, least), most) - 1):
            usual = self._draw.random() < 0.7
            said.append(self._draw.choice(self._follows[said[-1]]) if usual else self._drawn(1)[0])
        return said

    def _drawn(self, count: int) -> list[int]:
        return self._draw.choices(self._words, cum_weights=self._cumulative, k=count)


def _rows(plan: Plan) -> tuple[list[Row], list[Row]]:
    """Rows to train on and to validate with. A conversation is stored with every answer, and so makes rows."""
    shape = SHAPES[plan.shape]
    writer = Writer(SIZES[plan.size].vocabulary, plan.seed)
    system = [START, *writer.words(*[shape.system] * 3), END, NEWLINE]
    wanted = plan.batch * plan.steps
    rows: list[Row] = []
    while len(rows) < wanted + plan.valid:
        ids, mask = [*system], [0] * len(system)
        for _ in range(shape.turns):
            question = [START, *writer.words(*shape.question), END, NEWLINE, START]
            answer = [*writer.words(*shape.answer), END]
            ids, mask = ids + question + answer, mask + [0] * len(question) + [1] * len(answer)
            rows.append(Row(ids=ids, mask=mask))
            ids, mask = [*ids, NEWLINE], [*mask, 0]
    return rows[:wanted], rows[wanted : wanted + plan.valid]


def _steps(rows: Sequence[Row], plan: Plan) -> list[list[Any]]:
    """The rows of every step, as our training chooses them."""
    from stillroom.student.chats.template import Example
    from stillroom.student.training.packing import SHARED, epoch_batches

    examples = [Example(ids=array("i", row.ids), mask=bytes(row.mask)) for row in rows]
    return epoch_batches(examples, SHARED, batch_size=plan.batch, seed=plan.seed, epoch=0)


def _bound(plan: Plan) -> float:
    """Useful tokens by those that differ in what stands before them, which is what a step has to compute."""
    useful = processed = 0
    for step in _steps(_rows(plan)[0], plan):
        before: Sequence[int] = ()
        for ids in sorted(example.ids for example in step):
            same = next((at for at, pair in enumerate(zip(before, ids, strict=False)) if pair[0] != pair[1]), None)
            processed += len(ids) - (min(len(before), len(ids)) if same is None else same)
            useful += len(ids)
            before = ids
    return useful / processed


# --- one training, in a process of its own -----------------------------------------------------------------


def _child(task: dict[str, Any], report: str) -> None:
    import torch

    plan = Plan(**task["plan"])
    train, valid = _rows(plan)
    steps = _steps(train, plan)
    if plan.device == "cpu":
        torch.set_num_threads(1)
    model = _model(plan)
    _warm_up(model)
    if task["variant"] == "TRL":
        begin, seconds = _trained_by_trl(model, steps, plan, TrlSetting(**task["setting"]))
    else:
        begin, seconds = _trained_by_us(model, steps, plan, sharing=task["variant"] == OURS)
    figures = Figures(
        seconds=seconds,
        useful_tokens=sum(len(row.ids) for row in train),
        loaded_bytes=begin,
        peak_bytes=_peak_bytes(plan),
        valid_loss=_valid_loss(model, valid),
    )
    Path(report).write_text(json.dumps(asdict(figures)))


def _model(plan: Plan) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    size = SIZES[plan.size]
    torch.manual_seed(plan.seed)
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head_width,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=size.tied,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    with torch.device(plan.device):
        return Qwen3ForCausalLM(config)


def _warm_up(model: Any) -> None:
    """What a process does once, the first time it computes anything, is nobody's training."""
    import torch

    model(input_ids=torch.arange(FIRST_WORD, FIRST_WORD + 32, device=model.device)[None]).logits.sum().backward()
    model.zero_grad(set_to_none=True)


def _adamw(model: Any, plan: Plan) -> Any:
    from torch.optim import AdamW

    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": 0.1},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=SIZES[plan.size].learning_rate, betas=(0.9, 0.95), fused=True)


def _trained_by_us(model: Any, steps: list[list[Any]], plan: Plan, *, sharing: bool) -> tuple[int, float]:
    from stillroom.student.hyperparameters import Hyperparameters, resolve
    from stillroom.student.training import packing
    from stillroom.student.training.trainer import Trainer

    student = _student(model, plan)
    wanted = Hyperparameters(n_epochs=1, batch_size=plan.batch)
    numbers = resolve(wanted, num_examples=sum(map(len, steps)), method=student.method)
    trainer = Trainer(student, replace(numbers, learning_rate=SIZES[plan.size].learning_rate), emit=_warned)
    trainer.optimizers = [_adamw(model, plan)]
    trainer.plan([*chain(*steps)], None, limit_bytes=None)
    assert trainer.layout is packing.SHARED, "The model was refused sharing."
    if not sharing:
        trainer.computation.layout = packing.PADDED
    begin, began = _begun(plan)
    for number, examples in enumerate(steps, start=1):
        trainer.step(number, examples)
    return begin, _now(plan) - began


def _student(model: Any, plan: Plan) -> Any:
    import torch

    from stillroom.student.bases.base_models import Student
    from stillroom.student.bases.checkpoint import BaseReference
    from stillroom.student.chats.template import CHATML, ChatTemplate
    from stillroom.student.hyperparameters import Hyperparameters, Origin, method_of

    tokenizer = _tokenizer(plan)
    tokenizer.chat_template = CHATML
    return Student(
        model=model,
        template=ChatTemplate(tokenizer, end_ids=[END], name=plan.size),
        method=method_of(Hyperparameters(), Origin(from_nothing=True)),
        base=BaseReference(name=plan.size, path=None, revision=None),
        context_tokens=CONTEXT,
        compute_dtype=torch.bfloat16 if plan.device == "cuda" else torch.float32,
    )


def _warned(event: Mapping[str, Any]) -> None:
    if event["level"] != "info":
        raise RuntimeError(event["message"])


def _trained_by_trl(model: Any, steps: list[list[Any]], plan: Plan, setting: TrlSetting) -> tuple[int, float]:
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import TrainerCallback
    from trl import SFTTrainer

    from stillroom.student.hyperparameters import learning_rate_at

    span: dict[str, Any] = {}

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Reads the clock where the first step begins and where the last one has ended."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            span["begin"], span["began"] = _begun(plan)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            span["ended"] = _now(plan)

    optimizer, total = _adamw(model, plan), len(steps)
    schedule = LambdaLR(optimizer, lambda done: learning_rate_at(min(done + 1, total), total_steps=total, peak=1.0))
    trainer = SFTTrainer(
        model=model,
        args=_trl_arguments(steps, plan, setting),
        train_dataset=_trl_rows(steps),
        processing_class=_tokenizer(plan),
        optimizers=(optimizer, schedule),
        callbacks=[Clock()],
    )
    trainer.train()
    assert trainer.state.global_step == total
    return span["begin"], span["ended"] - span["began"]


def _trl_rows(steps: list[list[Any]]) -> Any:
    """Tokens and labels in the order of our steps; within a step by length, so that little is padded."""
    from datasets import Dataset

    rows = [row for step in steps for row in sorted(step, key=lambda each: len(each.ids))]
    labels = [[token if trained else -100 for token, trained in zip(row.ids, row.mask, strict=True)] for row in rows]
    return Dataset.from_dict({"input_ids": [list(row.ids) for row in rows], "labels": labels})


def _trl_arguments(steps: list[list[Any]], plan: Plan, setting: TrlSetting) -> Any:
    from trl import SFTConfig

    packed = setting.layout == "packed"
    longest = 2 * max(len(row.ids) for step in steps for row in step)
    accumulated = plan.batch // setting.together
    if packed:
        # The packs are what counts as rows then: as many as make the same number of steps.
        packs = -(-sum(len(row.ids) for step in steps for row in step) // longest)
        accumulated = max(1, packs // len(steps) // setting.together)
    return SFTConfig(
        output_dir="trl",
        max_steps=len(steps),
        per_device_train_batch_size=setting.together,
        gradient_accumulation_steps=accumulated,
        packing=packed,
        padding_free=setting.layout == "flat",
        max_length=longest if packed else None,
        train_sampling_strategy="group_by_length" if setting.by_length else "sequential",
        gradient_checkpointing=False,
        bf16=plan.device == "cuda",
        use_cpu=plan.device == "cpu",
        use_liger_kernel=plan.device == "cuda" and find_spec("liger_kernel") is not None,
        max_grad_norm=1.0,
        logging_steps=len(steps),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=plan.device == "cuda",
        seed=plan.seed,
    )


def _tokenizer(plan: Plan) -> Any:
    """Both trainers want one, and neither tokenizes anything here."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(SIZES[plan.size].vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w4")), pad_token="w3", eos_token="w1"
    )


def _valid_loss(model: Any, rows: Sequence[Row]) -> float:
    """Mean over the trained tokens of rows computed one by one, the plain way."""
    import torch
    from torch.nn import functional

    model.eval()
    loss, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(row.ids, device=model.device)
            trained = torch.tensor(row.mask, device=model.device)[1:].bool()
            hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0, :-1][trained]
            logits = model.get_output_embeddings()(hidden).float()
            loss += float(functional.cross_entropy(logits, ids[1:][trained], reduction="sum"))
            count += int(trained.sum())
    return loss / count


# --- reading clock and memory ------------------------------------------------------------------------------


def _begun(plan: Plan) -> tuple[int, float]:
    """What is held now, from where the peak is counted anew, and the clock."""
    if plan.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated(), _now(plan)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS"), _now(plan)


def _now(plan: Plan) -> float:
    if plan.device == "cuda":
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _peak_bytes(plan: Plan) -> int:
    if plan.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _ceiling() -> float:
    """Operations a second of one large product."""
    import torch

    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(50):
        left @ right
    torch.cuda.synchronize()
    return 50 * 2 * 8192**3 / (time.perf_counter() - began)


def _matrix_parameters(size: Size) -> int:
    """Of the layers' matrices, which every token passes through; the head sees targets alone."""
    attention = size.width * size.head_width * (2 * size.heads + 2 * size.key_value_heads)
    return size.layers * (attention + 3 * size.width * size.inner)


if __name__ == "__main__":
    main()
