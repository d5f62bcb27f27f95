"""What a report page says first, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

from stillroom.evals.reporting import page
from stillroom.evals.reporting.report import Earning, Expense, Report, Side, Speed, Teacher, Training
from stillroom.evals.reporting.statistics import share

EARNED = Earning(
    training_microusd=580_000,
    teacher_microusd_per_day=1_270_000,
    student_microusd_per_day=20_000,
    days=0.46,
    date="2026-11-23",
    reason=None,
)
SIDE = Side(
    run_id="evalrun_1",
    name="triage:Ab12Cd34",
    model="ft:small:org:triage:Ab12Cd34",
    status="succeeded",
    items=200,
    graded=200,
    errored=0,
    unanswered=0,
    problem=None,
    agreement=share(198, 200),
    criteria=[],
    judged=None,
    speed=Speed(p50_ms=240, p95_ms=350),
    expense=Expense(prompt_tokens=304, completion_tokens=18, microusd_per_1000_calls=18_800),
    training=Training(tuned=True, trained_on=0, left_out=0),
    earning=EARNED,
    slices=[],
    worst=[],
)
TEACHER = Teacher(
    models={"gpt-4o": 200},
    items=200,
    speed=Speed(p50_ms=900, p95_ms=2000),
    expense=Expense(prompt_tokens=351, completion_tokens=20, microusd_per_1000_calls=1_078_300),
)


def of(side: Side, teacher: Teacher | None = TEACHER) -> Report:
    return Report(
        eval_id="eval_1", name="n", created_at=0, criteria=[], judges=[], teacher=teacher, sides=[side], pairs=[]
    )


def test_the_first_sentence_says_agreement_price_and_when_the_training_is_earned() -> None:
    (line,) = page.headlines(of(SIDE))
    assert "99.0 % [96.4 – 99.7] of 200 held-out completions" in line
    assert "$0.0188 instead of $1.08, 98 % less" in line
    assert "the training is earned in 0.5 days" in line


def test_a_student_whose_hosting_costs_more_than_its_teacher_is_not_praised_for_its_tokens() -> None:
    dear = replace(
        EARNED, student_microusd_per_day=40_800_000, days=None, date=None, reason="The student saves nothing."
    )
    (line,) = page.headlines(of(replace(SIDE, earning=dear)))
    assert "saves nothing: with hosting it costs $40.80 a day, the teacher $1.27" in line
    assert "never earned" in page.as_markdown(of(replace(SIDE, earning=dear)))


def test_items_that_were_trained_on_are_not_called_held_out_and_are_shown_in_red() -> None:
    seen = of(replace(SIDE, training=Training(tuned=True, trained_on=36, left_out=0)))
    assert "held-out" not in page.headlines(seen)[0]
    assert '<td class="bad">NO: trained on 36 of 200</td>' in page.as_html(seen)
    assert '<td class="good">yes, all 200</td>' in page.as_html(of(SIDE))
    assert "not trained here" in page.as_html(
        of(replace(SIDE, training=Training(tuned=False, trained_on=0, left_out=0)))
    )


def test_without_a_teacher_there_is_no_headline_and_no_empty_row() -> None:
    bare = replace(
        SIDE,
        model=None,
        agreement=None,
        earning=None,
        training=None,
        speed=Speed(p50_ms=None, p95_ms=None),
        expense=Expense(prompt_tokens=0, completion_tokens=0, microusd_per_1000_calls=None),
    )
    assert page.headlines(of(bare, None)) == []
    assert [row[0] for row in page.rows(of(bare, None))] == ["Items"]


def test_what_people_and_models_write_is_no_markup_in_markdown_either() -> None:
    hostile = "<img src=x> ![x](https://evil.example) a\\|b `c` _d_"
    (title, *_) = page.as_markdown(of(replace(SIDE, name=hostile))).splitlines()
    shown = page.as_markdown(replace(of(replace(SIDE, name=hostile)), name=hostile))
    assert title == "# n"
    for markup in ("<img", "![", "](", " `c`", "_d_ "):
        assert markup not in shown.replace("\\" + markup[0], "")
    assert "a\\\\\\|b" in shown
