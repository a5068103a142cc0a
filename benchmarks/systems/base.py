"""Interface between the harness and the subjects that it measures: servers and clients."""

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
    """A running system that has given a right answer."""

    predict: Call
    """Call with one document."""
    processes: Sequence[int]
    """Ids of the system's processes; processes that these started belong to the system too."""
    batch: Call | None = None
    """Call with many documents, if the system has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(ABC):
    """A system or client that is measured in every round."""

    name: str
    """Name in options and result files."""
    title: str
    """Name in tables and plots."""
    kind: Kind = Kind.PEER
    hops: int = 1
    """Number of servers that a request passes through."""
    levels: frozenset[int] | None = None
    """Numbers of requests in flight to measure, out of those in the plan; ``None``: all of them."""

    def install(self) -> None:
        """Create the environment, if the subject needs one besides the harness's own.

        Raises:
            CannotInstall: the environment cannot be installed on this machine.
        """
        return

    def chosen(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Return the ``levels`` at which this subject is measured."""
        return tuple(level for level in levels if self.levels is None or level in self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class System(Subject):
    """A way to serve the model."""

    warm_up_seconds: float = 1.0
    """Length of the load before the first measurement, in seconds."""
    parts: frozenset[Part] = UNARY
    """Parts to measure, out of those in the plan."""

    @abstractmethod
    def start(self, workplace: Path) -> AbstractContextManager[Running]:
        """Start the system with its files below ``workplace``, and stop it after the block.

        Raises:
            ProgramEnded: a program ended by itself.
            WrongAnswer: the system never gave the right answer.
        """


MODEL_SETTINGS: Final[Mapping[str, str]] = our_code(MODELS, MODEL_ID)
"""Environment variables that name the model for programs inside peers, and this project's location for Python."""


def wait_until_right(call: Call, programs: Sequence[Program], seconds: float = 60.0) -> None:
    """Return once ``programs`` give the right answer to ``call``.

    Raises:
        ProgramEnded: a program ended by itself.
        WrongAnswer: there was no right answer within ``seconds``.
    """

    def check_alive() -> None:
        for program in programs:
            program.check_alive()

    ask_until_right(call, seconds, check_alive)


def check_label(label: str, expected: str = LABEL) -> None:
    """Raise :class:`WrongAnswer` if ``label`` is not ``expected``."""
    if label != expected:
        raise WrongAnswer(f"the answer is {label!r} instead of {expected!r}")
