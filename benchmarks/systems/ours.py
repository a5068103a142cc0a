"""This project, started in several ways."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.calls import Call, WrongAnswer, ask
from benchmarks.results import Kind, Part
from benchmarks.systems.base import UNARY, Running, System, wait_until_right
from benchmarks.systems.extras import (
    Extra,
    Prepare,
    all_off,
    encrypted,
    guarded,
    nothing,
    traced,
    with_flags,
)
from benchmarks.systems.predictions import batch_call, predict_call
from benchmarks.workload import MODELS
from peers.programs import ROOT, free_ports, running

Command = tuple[str | Path, ...]

_SHAPES: Final = ((2, "two-processes", "two processes"), (1, "one-process", "one process"))
_WORKERS: Final = 2
_EXTRAS: Final[tuple[tuple[str, str, Prepare, frozenset[int]], ...]] = (
    ("off", "no log at all", all_off, frozenset({64})),
    ("guarded", "access rules, metrics, log of refusals", guarded, frozenset({64})),
    ("tls", "TLS", encrypted, frozenset({1, 64})),
    ("traced", "traces", traced, frozenset({64})),
    ("workers", f"{_WORKERS} workers", with_flags("--workers", str(_WORKERS)), frozenset({64, 256})),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Location of the services' code, and the Python that runs it."""

    python: Path = Path(sys.executable)
    folder: Path = ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours(System):
    """One way to start this project."""

    transport: str
    """Transport of the service that callers connect to."""
    predictor_transport: str = ""
    """Transport of the predictor; empty: the same as ``transport``."""
    prepare: Prepare = nothing
    get_source: Callable[[], Source] = Source
    """Returns the location of the code, and installs the code if necessary. Raises CannotInstall."""
    kind: Kind = Kind.OURS
    parts: frozenset[Part] = frozenset(Part)

    def install(self) -> None:
        """Install the code, if necessary."""
        self.get_source()

    def start(self, workplace: Path) -> AbstractContextManager[Running]:
        """Serve the sample models."""
        return self.serve(MODELS, workplace, predict_call)

    @contextmanager
    def serve(self, models: Path, workplace: Path, call_at: Callable[[str], Call]) -> Iterator[Running]:
        """Serve a folder of models; yield once the call that ``call_at`` returns for the address gets the right answer.

        Raises:
            WrongAnswer: the call never got the right answer, or a caller without the credential is answered too.
        """
        with ExitStack() as stack:
            extra = self.prepare(stack, workplace)
            port, predictor_port = free_ports(2)
            programs = [
                stack.enter_context(running(command, workplace / f"{name}.log", folder=self.get_source().folder))
                for name, command in self._commands(models, port, predictor_port, extra).items()
            ]
            address = f"127.0.0.1:{port}"
            call = extra.asked(call_at(address))
            wait_until_right(call, programs)
            if extra.metadata:
                _check_refused(replace(call, metadata=()))
            yield Running(call, [program.process.pid for program in programs], extra.asked(batch_call(address)))

    def _commands(self, models: Path, port: int, predictor_port: int, extra: Extra) -> dict[str, Command]:
        python = self.get_source().python

        def command(program: str, transport: str, port: int) -> Command:
            common = ("--model-dir", models, "--transport", transport, "--port", str(port))
            return (python, "-m", program, *common)

        if self.hops == 1:
            return {"model_service": (*command("model_service", self.transport, port), *extra.flags)}
        predictor = command("predictor", self.predictor_transport or self.transport, predictor_port)
        routes = f"intent-classification=predictor://127.0.0.1:{predictor_port}"
        return {
            "predictor": (*predictor, *extra.predictor_flags),
            "frontend": (*command("frontend", self.transport, port), "--routes", routes, *extra.flags),
        }


def _check_refused(call: Call) -> None:
    try:
        ask(call)
    except WrongAnswer:
        return
    raise WrongAnswer("a caller without a credential was answered; the access rules are not in force")


def ours(transport: str) -> tuple[Ours, ...]:
    """Return both shapes, each followed by its variants with an extra."""
    systems: list[Ours] = []
    for hops, name, title in _SHAPES:
        systems.append(Ours(name=name, title=f"Intent Serving, {title}", hops=hops, transport=transport))
        systems += [
            Ours(
                name=f"{name}-{extra}",
                title=f"{title}, {what}",
                kind=Kind.VARIANT,
                hops=hops,
                levels=levels,
                parts=UNARY,
                transport=transport,
                prepare=prepare,
            )
            for extra, what, prepare, levels in _EXTRAS
        ]
    return tuple(systems)


def on_transport(transport: str) -> tuple[Ours, ...]:
    """Return both shapes on ``transport``, with the transport in their names."""
    return tuple(
        Ours(
            name=f"{name}-{transport}",
            title=f"Intent Serving, {title}, {transport}",
            hops=hops,
            transport=transport,
        )
        for hops, name, title in _SHAPES
    )
