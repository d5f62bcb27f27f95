"""A report as a page that stands alone: HTML without scripts or anything to fetch, and Markdown.

Whatever people or models have written is text here, never markup.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from stillroom.evals.comparison import SAME_TEXT
from stillroom.evals.reporting.report import Disagreement, Report, Side, Teacher
from stillroom.evals.reporting.statistics import Share

SHOWN_LETTERS = 4000  # of one text in a disagreement
MICRO = 1_000_000
MARKUP = re.compile(r"[\\`*_\[\]()!<>|#~&]")
NOTHING = "–"
YES_OR_NO = ("string_check", "label_model")  # their mean score is the share that passed
HELD_OUT = "Held out"
UNTUNED = "not trained here"
MEASURED = (
    ("Exact agreement", "the same text as the teacher's but for space around it, and the same tool calls"),
    ("[low – high]", "the 95 % interval of the true share (Wilson)"),
    (
        "Judged",
        "a judge saw each pair of different answers twice, swapped; only what both verdicts say is a win or a loss",
    ),
    (
        "Latency",
        "to the whole answer: the teacher's as stored; a model's as its run's calls took, several at a time, but for the first",
    ),
    ("Price", "the configured prices times the tokens of these very calls; hosting is not in it"),
    (
        "A day, training",
        "what the teacher's calls of the last 30 days cost a day, what they would have cost with the student and its "
        "hosting, and when the difference has paid for the training",
    ),
    ("Held out", "no prompt of the items was in the model's training file, nor in those of the models it was made of"),
)


def as_json(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


# --- Markdown ---------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    head = [f"# {_line(report.name)}", "", _when(report), ""]
    notes = [f"> **Note:** {_line(note)}" for note in report.notes]
    lines = [
        *head,
        *[part for line in headlines(report) for part in (_line(line), "")],
        *notes,
        *([""] if notes else []),
        *_markdown_table(columns(report), rows(report)),
    ]
    for pair in pair_lines(report):
        lines += ["", _line(pair)]
    for side in report.sides:
        lines += _markdown_slices(side) + _markdown_worst(side)
    lines += ["", "## How this was measured", "", *[f"- **{name}**: {text}." for name, text in MEASURED]]
    return "\n".join(lines) + "\n"


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = f"| {' | '.join(map(_line, columns))} |"
    return [head, f"|{'---|' * len(columns)}", *[f"| {' | '.join(map(_line, row))} |" for row in rows]]


def _markdown_slices(side: Side) -> list[str]:
    if not side.slices:
        return []
    rows = [(one.key, one.value, str(one.agreement.total), shown_share(one.agreement)) for one in side.slices]
    title = f"## {_line(side.name)}: by metadata"
    return ["", title, "", *_markdown_table(("Key", "Value", "Items", "Exact agreement"), rows)]


def _markdown_worst(side: Side) -> list[str]:
    if not side.worst:
        return []
    lines = ["", f"## {_line(side.name)}: worst disagreements"]
    for one in side.worst:
        lines += ["", f"### {one.completion_id or 'an item'} (graders' mean {one.score:.2f})"]
        for title, text in (("Prompt", one.prompt), ("Teacher", one.teacher), ("Student", one.student)):
            lines += ["", f"**{title}**", "", *[f"    {line}" for line in _cut(text).splitlines() or ["(nothing)"]]]
    return lines


def _line(text: str) -> str:
    """One line, and text: nothing in it is markup."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


# --- HTML -------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --paper: #ffffff; --line: #d8dee4; --soft: #f4f6f8;
  --good: #1a7f4b; --bad: #c1272d; --bar: #3b6fd4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #9aa4ae; --paper: #14171a; --line: #30363d;
  --soft: #1c2126; --good: #4ac27f; --bad: #ff7b72; --bar: #79a6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1, h2 { overflow-wrap: anywhere; } h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; } .headline { font-size: 1.1rem; margin: .75rem 0; }
h3 { font-size: .95rem; margin: 0 0 .5rem; color: var(--dim); font-weight: 600; overflow-wrap: anywhere; }
.dim { color: var(--dim); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { min-width: 5.5rem; text-align: left; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--dim); font-weight: 600; overflow-wrap: break-word; max-width: 16rem; } tbody th { font-weight: 500; }
.note { border-left: 4px solid var(--bad); background: var(--soft); padding: .75rem 1rem; margin: .75rem 0; }
.note.red { color: var(--bad); font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.bar { display: block; position: relative; height: .5rem; min-width: 7rem; max-width: 14rem; background: var(--soft);
  border: 1px solid var(--line); border-radius: .25rem; margin-top: .25rem; }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--bar); opacity: .35; }
.bar b { position: absolute; top: -2px; bottom: -2px; width: 3px; background: var(--bar); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } .case { border: 1px solid var(--line);
  border-radius: .5rem; padding: 1rem; margin: 1rem 0; } @media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); border-radius: .375rem; padding: .75rem;
  margin: .25rem 0 0; font: .875rem/1.45 ui-monospace, monospace; max-height: 24rem; overflow: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; color: var(--dim); }
"""


def as_html(report: Report) -> str:
    body = [
        f"<h1>{escape(report.name)}</h1>",
        f'<p class="dim">{escape(_when(report))}</p>',
        *[f'<p class="headline">{escape(line)}</p>' for line in headlines(report)],
        *map(_note, report.notes),
        _html_table(report),
        *[f"<p>{escape(line)}</p>" for line in pair_lines(report)],
    ]
    for side in report.sides:
        body += [_html_slices(side), _html_worst(side)]
    measured = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}.</dd>" for name, text in MEASURED)
    body += ["<h2>How this was measured</h2>", f"<dl>{measured}</dl>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.name)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _note(note: str) -> str:
    red = " red" if "was trained on" in note else ""
    return f'<p class="note{red}" role="note">{escape(note)}</p>'


def _html_table(report: Report) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns(report))
    body = "".join(_html_row(report, row) for row in rows(report))
    return f'<h2>At a glance</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _html_row(report: Report, row: Sequence[str]) -> str:
    name, *cells = row
    bars = {"Exact agreement": [side.agreement for side in report.sides]}
    bars |= {
        criterion: [side.criteria[place].passed for side in report.sides]
        for place, criterion in enumerate(_criteria(report))
    }
    drawn = [None, *bars[name]] if name in bars and report.teacher else bars.get(name) or [None] * len(cells)
    columns = "".join(
        f"<td{_colour(name, cell)}>{escape(cell)}{_bar(one)}</td>" for cell, one in zip(cells, drawn, strict=True)
    )
    return f'<tr><th scope="row">{escape(name)}</th>{columns}</tr>'


def _colour(name: str, cell: str) -> str:
    if name != HELD_OUT or cell == NOTHING:
        return ""
    if cell.startswith("yes"):
        return ' class="good"'
    return "" if cell == UNTUNED else ' class="bad"'


def _bar(one: Share | None) -> str:
    """The interval as a band, the share as a mark in it."""
    if one is None:
        return ""
    band = f"left:{one.low * 100:.1f}%;right:{(1 - one.high) * 100:.1f}%"
    return (
        f'<span class="bar" aria-hidden="true"><i style="{band}"></i><b style="left:{one.share * 99:.1f}%"></b></span>'
    )


def _html_slices(side: Side) -> str:
    if not side.slices:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.key)}</td><td>{escape(one.value)}</td><td>{one.agreement.total}</td>"
        f"<td>{escape(shown_share(one.agreement))}{_bar(one.agreement)}</td></tr>"
        for one in side.slices
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Key", "Value", "Items", "Exact agreement"))
    return (
        f"<h2>{escape(side.name)}: by metadata</h2>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _html_worst(side: Side) -> str:
    if not side.worst:
        return ""
    return f"<h2>{escape(side.name)}: worst disagreements</h2>" + "".join(map(_html_case, side.worst))


def _html_case(one: Disagreement) -> str:
    told = ", ".join(f"{key}={value}" for key, value in one.metadata.items())
    title = f"{one.completion_id or 'an item'} · graders’ mean {one.score:.2f}{' · ' + told if told else ''}"
    return (
        f'<section class="case"><h3>{escape(title)}</h3>'
        f"<div><strong>Prompt</strong><pre>{escape(_cut(one.prompt))}</pre></div>"
        f'<div class="pair"><div><strong>Teacher</strong><pre>{escape(_cut(one.teacher))}</pre></div>'
        f"<div><strong>Student</strong><pre>{escape(_cut(one.student))}</pre></div></div></section>"
    )


# --- what both say ----------------------------------------------------------------------------------


def headlines(report: Report) -> list[str]:
    """One sentence a run: how often it agrees with the teacher, on what, and what it saves."""
    return [_headline(side, report.teacher) for side in report.sides if side.agreement is not None and report.teacher]


def _headline(side: Side, teacher: Teacher | None) -> str:
    assert side.agreement is not None
    unseen = side.training is not None and side.training.trained_on == 0
    on = f"{side.agreement.total} {'held-out ' if unseen else ''}completions"
    told = f"{side.name} gives the teacher's answer to {shown_share(side.agreement)} of {on}"
    old = teacher.expense.microusd_per_1000_calls if teacher else None
    new = side.expense.microusd_per_1000_calls
    if not old or new is None:
        return f"{told}."
    saved = 1 - new / old
    less = f"{saved * 100:.0f} % less" if saved >= 0 else f"{-saved * 100:.0f} % more"
    told = f"{told}. The tokens of 1,000 calls come to {_price(side)} instead of {_price(teacher)}, {less}"
    return f"{told}; {_earned(side)}" if side.earning is not None else f"{told}."


def _earned(side: Side) -> str:
    """What that means with training and hosting paid."""
    assert side.earning is not None
    if side.earning.days is not None and not side.earning.training_microusd:
        return f"at the traffic of late it costs {_dollars(side.earning.student_microusd_per_day)} a day with hosting."
    if side.earning.days is not None:
        return f"at the traffic of late the training is earned in {side.earning.days:,.1f} days."
    if side.earning.teacher_microusd_per_day == 0:
        return "there was no traffic of late to earn the training."
    return (
        f"but at the traffic of late it saves nothing: with hosting it costs {_dollars(side.earning.student_microusd_per_day)} "
        f"a day, the teacher {_dollars(side.earning.teacher_microusd_per_day)}."
    )


def columns(report: Report) -> list[str]:
    teacher = ["Teacher: " + ", ".join(report.teacher.models)] if report.teacher else []
    return ["", *teacher, *[f"{side.name}" for side in report.sides]]


def rows(report: Report) -> list[list[str]]:
    """The rows of the overview: a title, the teacher's cell if there is a teacher, one cell a run."""
    sides, teacher = report.sides, report.teacher

    def row(title: str, of_teacher: str, cells: Iterable[str]) -> list[str]:
        return [title, *([of_teacher] if teacher else []), *cells]

    found = [row("Items", f"{teacher.items}" if teacher else "", map(_items, sides))]
    if any(side.agreement for side in sides):
        found.append(row("Exact agreement", NOTHING, [shown_share(side.agreement) for side in sides]))
    for place, name in enumerate(_criteria(report)):
        if not _says_nothing_new(report, place):
            found.append(row(name, NOTHING, [_criterion(side, place) for side in sides]))
    if any(side.judged for side in sides):
        found.append(row(_judge_title(report), NOTHING, map(_judged, sides)))
    found.append(row("Latency p50 / p95", _speed(teacher), [_speed(side) for side in sides]))
    found.append(row("Tokens in / out of a call", _tokens(teacher), [_tokens(side) for side in sides]))
    found.append(row("Price of 1,000 calls", _price(teacher), [_price(side) for side in sides]))
    earnings = [side.earning for side in sides if side.earning is not None]
    if earnings:
        day = _dollars(earnings[0].teacher_microusd_per_day)
        found.append(row("A day, hosting included", day, map(_a_day, sides)))
        found.append(row("Training", NOTHING, map(_earning, sides)))
    if any(side.training for side in sides):
        found.append(row(HELD_OUT, NOTHING, map(_held_out, sides)))
    return [row for row in found if set(row[1:]) != {NOTHING}]


def _says_nothing_new(report: Report, place: int) -> bool:
    """Whether a criterion is the exact agreement over again, as it is but for tool calls and outer space."""
    sides = report.sides
    same = all(side.agreement is not None and side.criteria[place].passed == side.agreement for side in sides)
    return same and sides[0].criteria[place].name == SAME_TEXT


def _criteria(report: Report) -> list[str]:
    return [criterion.name for criterion in report.sides[0].criteria] if report.sides else []


def _items(side: Side) -> str:
    return f"{side.items}" if not side.unanswered else f"{side.items} ({side.unanswered} unanswered)"


def shown_share(one: Share | None) -> str:
    """`97.5 % [94.3 – 98.9]`, or a dash."""
    if one is None:
        return NOTHING
    return f"{one.share * 100:.1f} % [{one.low * 100:.1f} – {one.high * 100:.1f}]"


def _criterion(side: Side, place: int) -> str:
    criterion = side.criteria[place]
    told = criterion.mean_score is not None and criterion.type not in YES_OR_NO
    mean = f", mean {criterion.mean_score or 0.0:.3f}" if told else ""
    errors = f", {criterion.errored} in error" if criterion.errored else ""
    return f"{shown_share(criterion.passed)}{mean}{errors}"


def _judge_title(report: Report) -> str:
    return f"Judged by {', '.join(report.judges)}: win / tie / loss"


def _judged(side: Side) -> str:
    if side.judged is None:
        return NOTHING
    judged = side.judged
    return f"{judged.wins} / {judged.ties} / {judged.losses}; win or tie {shown_share(judged.win_or_tie)}"


def _speed(side: Teacher | Side | None) -> str:
    if side is None or side.speed.p50_ms is None:
        return NOTHING
    return f"{side.speed.p50_ms:,} / {side.speed.p95_ms:,} ms"


def _tokens(side: Teacher | Side | None) -> str:
    if side is None or not side.expense.prompt_tokens:
        return NOTHING
    return f"{side.expense.prompt_tokens:,.0f} / {side.expense.completion_tokens:,.0f}"


def _price(side: Teacher | Side | None) -> str:
    if side is None or side.expense.microusd_per_1000_calls is None:
        return NOTHING
    return _dollars(side.expense.microusd_per_1000_calls)


def _earning(side: Side) -> str:
    if side.earning is None:
        return NOTHING
    cost = _dollars(side.earning.training_microusd)
    if not side.earning.training_microusd:
        return NOTHING  # a base, or training that is counted at nothing
    if side.earning.teacher_microusd_per_day == 0:
        return f"{cost}: {side.earning.reason}"
    if side.earning.days is None:
        return f"{cost}, never earned at this traffic"
    return f"{cost}, earned in {side.earning.days:,.1f} days ({side.earning.date})"


def _a_day(side: Side) -> str:
    return NOTHING if side.earning is None else _dollars(side.earning.student_microusd_per_day)


def _dollars(microusd: int) -> str:
    """With as many digits as it takes to see something."""
    digits = 2 if microusd == 0 or microusd >= MICRO // 10 else 4
    return f"${microusd / MICRO:,.{digits}f}"


def _held_out(side: Side) -> str:
    if side.training is None or side.model is None:
        return NOTHING
    if not side.training.tuned:
        return UNTUNED
    left_out = f" ({side.training.left_out} left out)" if side.training.left_out else ""
    if side.training.trained_on is None:
        return "unknown"
    if side.training.trained_on:
        return f"NO: trained on {side.training.trained_on} of {side.items}"
    return f"yes, all {side.items}{left_out}"


def pair_lines(report: Report) -> list[str]:
    names = {side.run_id: side.name for side in report.sides}
    return [
        f"Of {pair.items} items, {pair.only_this_agrees} agree with the teacher only in “{names[pair.run_id]}”, "
        f"{pair.only_beside_agrees} only in “{names[pair.beside_run_id]}”"
        + (f" (p = {pair.p_value:.2g}, McNemar)." if pair.p_value is not None else ".")
        for pair in report.pairs
    ]


def _when(report: Report) -> str:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.created_at))
    what = "Teacher beside student. " if report.teacher else ""
    return f"{what}{report.eval_id}, {made}."


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"
