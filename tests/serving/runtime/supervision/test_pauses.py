from __future__ import annotations

from serving.runtime.supervision.pauses import RestartPauses
from serving.runtime.supervision.times import Times

TIMES = Times(stable=60.0, first_pause=0.5, longest_pause=3.0)


def test_the_first_restart_is_at_once_and_pauses_grow_up_to_a_bound() -> None:
    pauses = RestartPauses(TIMES)
    assert [pauses.after(lived=1.0) for _ in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_stable_life_it_begins_anew() -> None:
    pauses = RestartPauses(TIMES)
    assert [pauses.after(lived) for lived in (1.0, 1.0, 1.0, 60.0, 1.0)] == [0.0, 0.5, 1.0, 0.0, 0.5]


def test_months_of_failures_are_no_longer_pauses() -> None:
    pauses = RestartPauses(TIMES)
    assert max(pauses.after(lived=0.0) for _ in range(5000)) == 3.0
