"""Rounds over systems that cannot be installed or that answer wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import campaign
from benchmarks.calls import WrongAnswer
from benchmarks.results import Plan
from benchmarks.systems.base import Running, System
from peers.environments import CannotInstall


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(System):
    """System that never gives the right answer."""

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        raise WrongAnswer(f"{self.name} is broken")
        yield  # type: ignore[unreachable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent(Broken):
    """System that cannot be installed."""

    def install(self) -> None:
        raise CannotInstall(f"{self.name} is not here")


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on() -> None:
    told: list[str] = []

    results = campaign.run(
        Plan(rounds=2), [Absent(name="absent", title="A"), Broken(name="broken", title="B")], "http2", told.append
    )

    assert results.missing == {"absent": "absent is not here", "broken": "round 1: broken is broken"}
    assert results.rounds == [{}, {}]


def test_every_second_round_goes_backwards() -> None:
    told: list[str] = []
    systems = [Broken(name=name, title=name) for name in "abc"]

    campaign.run(Plan(rounds=2), systems, "http2", told.append)

    assert [step[-1] for step in told if step.startswith("round")] == [*"abc", *"cba"]
    assert len(told) == campaign.steps(Plan(rounds=2), systems)
