from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.mcnemar import mcnemar_p_value


def by_definition(wins: int, losses: int) -> float:
    """Return the probability of all splits at least as uneven if a fair coin is tossed for each row."""
    tosses = wins + losses
    splits = [heads for heads in range(tosses + 1) if abs(2 * heads - tosses) >= abs(wins - losses)]
    return float(sum(Fraction(math.comb(tosses, heads), 2**tosses) for heads in splits))


@given(st.integers(0, 200), st.integers(0, 200))
def test_it_is_the_probability_of_its_definition(wins: int, losses: int) -> None:
    value = mcnemar_p_value(wins, losses)
    assert value == pytest.approx(by_definition(wins, losses), rel=1e-9)
    assert value == mcnemar_p_value(losses, wins)


def test_a_published_example() -> None:
    """Two culture media; 12 and 2 specimens grew on only one of them: Armitage and Berry, 1994, p. 127."""
    assert mcnemar_p_value(12, 2) == pytest.approx(0.0129, abs=5e-5)


@pytest.mark.parametrize(("wins", "losses", "p_value"), [(0, 0, 1.0), (500_000, 500_000, 1.0), (0, 200_000, 0.0)])
def test_the_ends_of_the_scale(wins: int, losses: int, p_value: float) -> None:
    assert mcnemar_p_value(wins, losses) == p_value


def test_many_rows_are_still_told_apart() -> None:
    """Compare with the normal approximation, which is close for many rows."""
    value = mcnemar_p_value(50_000, 50_500)
    deviations = (500 - 1) / math.sqrt(100_500)
    assert value == pytest.approx(math.erfc(deviations / math.sqrt(2)), rel=1e-3)
