from __future__ import annotations

import pytest

from launch.config.durations import Duration, parse_duration

ALL = ("steps", "epochs", "minutes", "%")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500 steps", Duration(500, "steps")),
        ("1 step", Duration(1, "steps")),
        ("1 epoch", Duration(1, "epochs")),
        ("0.5 epochs", Duration(0.5, "epochs")),
        ("30 minutes", Duration(30, "minutes")),
        ("10 %", Duration(10, "%")),
        ("10%", Duration(10, "%")),
        ("1_000 steps", Duration(1000, "steps")),
        ("1e3 steps", Duration(1000, "steps")),
    ],
)
def test_duration_is_read(text, duration):
    assert parse_duration(text, ALL) == duration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (500, "500 is not a duration: write it with its unit, e.g. '3 steps'"),
        ("500", "'500' is not a duration"),
        ("5 weeks", "'5 weeks' has the unit 'weeks', which does not fit here"),
        ("0 steps", "'0 steps' is no length"),
        ("1.5 steps", "not a whole number of steps"),
        ("1e999 steps", "'1e999 steps' is too long: at most 1000000000 steps"),
        ("1000000001 epochs", "is too long: at most 1000000000 epochs"),
        ("-1 epoch", "'-1 epoch' is not a duration"),
        (None, "None is not a duration"),
        (True, "True is not a duration"),
    ],
)
def test_text_that_is_no_duration_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_duration(text, ALL)


def test_unit_must_fit_the_field():
    with pytest.raises(ValueError, match=r"does not fit here \(units: steps, epochs\)"):
        parse_duration("10 %", ("steps", "epochs"))


@pytest.mark.parametrize("text", ["500 steps", "1 step", "1 epoch", "0.5 epochs", "10 %", "1234567 steps"])
def test_duration_prints_as_it_is_written(text):
    assert str(parse_duration(text, ALL)) == text


@pytest.mark.parametrize(
    ("text", "steps"),
    [("7 steps", 7), ("3 epochs", 30), ("0.25 epochs", 3), ("10 %", 12), ("0.1 epochs", 1)],
)
def test_length_in_steps(text, steps):
    assert parse_duration(text, ALL).in_steps(steps_per_epoch=10, total_steps=125) == steps


def test_minutes_have_no_length_in_steps():
    with pytest.raises(ValueError, match="no fixed number of optimizer steps"):
        parse_duration("30 minutes", ALL).in_steps(10, 100)
