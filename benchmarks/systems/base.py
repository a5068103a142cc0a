"""What the harness needs of whatever it measures: servers, and clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calls import Call, WrongAnswer, ask_until_right
from benchmarks.results import Kind, Part
from benchmarks.workload import LABEL, MODEL_ID, MODELS
from peers.programs import Program
from peers.servers import our_code

UNARY: Final = frozenset({Part.UNARY})


@dataclass(frozen=True, slots=True)
class Running:
    """A system that has answered rightly."""

    predict: Call
    """One document."""
    processes: Sequence[int]
    """Ids of the processes it consists of; what they started belongs to it as well."""
    batch: Call | None = None
    """Many documents in one call, where the system has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(ABC):
    """Something that is measured in every round."""

    name: str
    """The name in options and in files of results."""
    title: str
    """The name in tables and plots."""
    kind: Kind = Kind.PEER
    hops: int = 1
    """Number of servers that a request passes."""
    levels: frozenset[int] | None = None
    """Numbers of requests in flight to measure, of those of the plan; ``None``: all of them."""

    def install(self) -> None:
        """Make the environment, where there is one beside the harness's own.

        Raises:
            CannotInstall: it cannot be had on this machine.
        """
        return

    def chosen(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Return those of ``levels`` that are measured."""
        return tuple(level for level in levels if self.levels is None or level in self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class System(Subject):
    """A way to serve the model."""

    warm_up_seconds: float = 1.0
    """Length of the load before the first figure."""
    parts: frozenset[Part] = UNARY
    """What is measured, of the parts of the plan."""

    @abstractmethod
    def start(self, workplace: Path) -> AbstractContextManager[Running]:
        """Start it, with its files below ``workplace``, and stop it behind the block.

        Raises:
            ProgramEnded: it ended by itself.
            WrongAnswer: it never gave the right answer.
        """


MODEL_SETTINGS: Final[Mapping[str, str]] = our_code(MODELS, MODEL_ID)
"""What tells the programs inside of peers which model to load, and Python where this project is."""


def wait_until_right(call: Call, programs: Sequence[Program], seconds: float = 60.0) -> None:
    """Return once ``call`` is answered rightly by ``programs``.

    Raises:
        ProgramEnded: one of them ended by itself.
        WrongAnswer: there was no right answer within ``seconds``.
    """

    def check_alive() -> None:
        for program in programs:
            program.check_alive()

    ask_until_right(call, seconds, check_alive)


def check_label(label: str, expected: str = LABEL) -> None:
    """Raise :class:`WrongAnswer` where ``label`` is not the one that is due."""
    if label != expected:
        raise WrongAnswer(f"the answer is {label!r} instead of {expected!r}")
