"""The curricula of X-DECODE, epoch by epoch."""

import pytest

from bd_diff.blur.curriculum import CURRICULA, level, severity

# (level, number of epochs in a row it lasts), for the epochs 0 to 99
TABLE = {
    "linear": [(n, 1) for n in range(5, 29, 2)] + [(29, 88)],
    "stepwise": [(3, 4)] + [(n, 5) for n in range(5, 29, 2)] + [(29, 36)],
    "slow_stepwise": [(3, 9)] + [(n, 10) for n in range(5, 23, 2)] + [(23, 1)],
    "exponential": [(3, 13), (5, 17), (7, 13), (9, 9), (11, 8), (13, 7), (15, 5), (17, 5), (19, 5), (21, 4), (23, 4)]
    + [(25, 3), (27, 3), (29, 4)],
    "sigmoid": [(3, 32), (5, 5), (7, 4), (9, 3), (11, 3), (13, 3), (15, 3), (17, 2), (19, 3), (21, 4), (23, 4)]
    + [(25, 6), (27, 12), (29, 16)],
    "none": [(29, 100)],
    "gopro_stepwise": [(3, 6)] + [(n, 7) for n in range(5, 19, 2)] + [(19, 45)],
}


@pytest.mark.parametrize("name", CURRICULA)
def test_each_curriculum_follows_its_table(name):
    expected = [value for value, epochs in TABLE[name] for _ in range(epochs)]
    assert len(expected) == 100
    assert [level(name, epoch) for epoch in range(100)] == expected


def test_an_unknown_curriculum_is_told_which_exist():
    with pytest.raises(ValueError, match="no curriculum 'slow'; the curricula are linear, stepwise"):
        level("slow", 0)


def test_severity_runs_from_the_smallest_box_to_the_largest():
    assert [severity(n) for n in (3, 16, 29)] == [0, 0.5, 1]
