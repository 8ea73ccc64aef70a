from __future__ import annotations

import pytest

from launch.config.quantities import show_count


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (842, "842"),
        (999, "999"),
        (1_000, "1.00 k"),
        (86_242, "86.2 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (9_994_000, "9.99 M"),
        (9_996_000, "10.0 M"),
        (22_713_986, "22.7 M"),
        (109_483_778, "109 M"),
        (7_241_732_096, "7.24 B"),
    ],
)
def test_a_count_has_three_digits_and_a_unit(count, shown):
    assert show_count(count) == shown
