"""What the harness needs of a system, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.calls import Call, WrongAnswer, ask_until_right
from benchmarks.workload import LABEL, MODEL_ID, MODELS
from peers.programs import Program
from peers.servers import our_code


@dataclass(frozen=True, slots=True)
class Running:
    """A system that has answered rightly."""

    predict: Call
    """One document."""
    processes: Sequence[int]
    """Ids of the processes it consists of; what they started belongs to it as well."""
    batch: Call | None = None
    """Many documents in one call, where the system has one."""


class System(Protocol):
    """A way to serve the model."""

    @property
    def name(self) -> str:
        """How options and result files call it."""

    @property
    def title(self) -> str:
        """How tables and plots call it."""

    @property
    def hops(self) -> int:
        """How many servers a request passes."""

    @property
    def warm_up_seconds(self) -> float:
        """How long it is asked before its first figure."""

    def install(self) -> None:
        """Make its environment.

        Raises:
            CannotInstall: it cannot be had on this machine.
        """

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
