"""How long a teacher is left alone."""

from __future__ import annotations

import pytest

from stillroom.distillation.throttle import Throttle


@pytest.mark.parametrize("asked", [86_400.0, float("inf")])
def test_no_teacher_is_left_alone_for_ever_and_a_long_pause_is_told_of_once(asked: float) -> None:
    told: list[str] = []
    throttle = Throttle(4, told.append)
    throttle.ease(0.0, 1.0)
    assert not told
    throttle.ease(0.0, asked)
    throttle.ease(0.0, asked)
    assert told == ["The teacher is overloaded and asks to be left alone: going on in 600 seconds."]
