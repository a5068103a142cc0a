"""Three predictors behind one name: which models each holds, and what callers notice when one leaves or joins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.tenants import make_tenants
from tests.conftest import ROOT
from tests.end_to_end.containers.compose import PUBLISHED, ComposeStack, compose_stack, residency_of, wait_until_healthy
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.containers.load import RETRIES, ROUND_ROBIN, Callers, Told, channel_to, until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

REPLICAS = 3
MODELS = 2000
SAMPLE = ROOT / "models" / "clinc150-banking"
BALANCE_SECONDS = 60.0
WINDOW = 600
"""Number of queries that show how the load is shared."""


class Replicated:
    """A stack with several predictors and many models."""

    def __init__(self, stack: ComposeStack, model_ids: Sequence[str]) -> None:
        self.address = stack.address
        self.model_ids = model_ids
        self.predictors = stack.containers("predictor")

    def settle(self) -> None:
        """Wait until all predictors are healthy."""
        for predictor in self.predictors:
            wait_until_healthy(predictor)

    def held(self) -> dict[str, set[str]]:
        """Return the models that each predictor holds."""
        return {name: {model.id for model in held.models} for name, held in residency_of(self.predictors).items()}

    def counted(self, name: str) -> dict[str, float]:
        """Return the value of a counter of each predictor since its start."""
        residency = residency_of(self.predictors, limit=1)
        return {predictor: held.counters[name] for predictor, held in residency.items()}


@pytest.fixture(scope="module")
def three(images: None, tmp_path_factory: pytest.TempPathFactory, workplace: Path) -> Iterator[Replicated]:
    """Three predictors with room for all models, and a frontend."""
    volume = tmp_path_factory.mktemp("tenants") / "models"
    model_ids = [str(model_id) for model_id in make_tenants(SAMPLE, volume, tenants=MODELS, models=20)]
    with compose_stack(volume, workplace, "--scale", f"predictor={REPLICAS}", overrides=PUBLISHED) as stack:
        yield Replicated(stack, model_ids)


async def test_each_model_is_in_the_memory_of_one_predictor(three: Replicated, figure: Callable[[str], None]) -> None:
    async with channel_to([three.address]) as channel:
        told = await Callers(channel, three.model_ids).ask_each(times=2)

    held = three.held()
    figure(f"models of each of {REPLICAS} predictors: {sorted(map(len, held.values()))}")
    assert (told.failures, told.wrong) == ({}, [])
    assert len(held) == REPLICAS
    assert set.union(*held.values()) == set(three.model_ids)
    assert sum(map(len, held.values())) == MODELS


async def test_a_predictor_that_is_killed_and_comes_back_costs_no_call_and_only_its_models_move(
    three: Replicated, figure: Callable[[str], None]
) -> None:
    three.settle()
    async with channel_to([three.address]) as channel:
        callers = Callers(channel, three.model_ids)
        await callers.ask_each()
        held = three.held()
        # Shares are a third on average; the smallest is at most that.
        victim = min(held, key=lambda name: len(held[name]))
        own, others = held.pop(victim), list(held)
        before = residency_of(others, limit=1)

        async with callers.asking() as told:
            await more_answers(told, 1000)
            await asyncio.to_thread(docker, "kill", victim)
            await more_answers(told, 3000)
        after_kill = await callers.ask_each()
        after = residency_of(others, limit=1)
        loads = sum(after[name].counters["loads"] - before[name].counters["loads"] for name in others)

        started = asyncio.get_running_loop().time()
        async with callers.asking() as told_again:
            await asyncio.to_thread(docker, "start", victim)
            await asyncio.to_thread(wait_until_healthy, victim)
            await until(in_balance(three), "balance", BALANCE_SECONDS)
            seconds = asyncio.get_running_loop().time() - started

    figure(f"a predictor killed under load: {told}; {loads:.0f} of {MODELS} models loaded again, it had {len(own)}")
    figure(f"the same predictor started again: {told_again}; balance after {seconds:.0f} s")
    for seen in (told, after_kill, told_again):
        assert (seen.failures, seen.wrong) == ({}, [])
    assert loads == len(own) <= MODELS / REPLICAS
    assert seconds < BALANCE_SECONDS


async def test_predictors_that_are_restarted_one_by_one_cost_no_call(
    three: Replicated, figure: Callable[[str], None]
) -> None:
    three.settle()
    async with (
        channel_to([three.address]) as channel,
        Callers(channel, three.model_ids).asking() as told,
    ):
        for predictor in three.predictors:
            await asyncio.to_thread(docker, "restart", "--time", "40", predictor)
            await asyncio.to_thread(wait_until_healthy, predictor)

    figure(f"{REPLICAS} predictors restarted one by one under load: {told}")
    assert (told.failures, told.wrong) == ({}, [])


async def test_a_predictor_that_hangs_is_avoided(three: Replicated, figure: Callable[[str], None]) -> None:
    three.settle()
    async with channel_to([three.address]) as channel:
        await Callers(channel, three.model_ids).ask_each()
        callers = Callers(channel, three.model_ids, timeout=1.0)
        hung = three.predictors[0]
        assert three.held()[hung]
        try:
            async with callers.asking() as told:
                await more_answers(told, 500)
                await asyncio.to_thread(docker, "pause", hung)
                # A call that reaches the hung predictor is held up until its deadline; then all callers continue.
                await more_answers(told, 5000)
            next_calls = await callers.ask_each()
        finally:
            docker("unpause", hung)

    figure(f"a predictor paused under load, callers with 1 s: {told}; then {next_calls}")
    assert {reason.partition(":")[0] for reason in told.failures} <= {"DEADLINE_EXCEEDED"}
    assert (next_calls.failures, next_calls.wrong, told.wrong) == ({}, [], [])


async def test_frontends_that_are_restarted_one_by_one_cost_callers_with_retries_no_call(
    images: None, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with compose_stack(ROOT / "models", tmp_path, "--scale", "frontend=2", addresses=addresses) as stack:
        async with (
            channel_to(addresses, {**RETRIES, **ROUND_ROBIN}) as channel,
            Callers(channel, ["clinc150", "banking77"]).asking() as told,
        ):
            for frontend in stack.containers("frontend"):
                await more_answers(told, 500)
                await asyncio.to_thread(docker, "restart", "--time", "40", frontend)
                await asyncio.to_thread(wait_until_healthy, frontend)

    figure(f"2 frontends restarted one by one under load: {told}")
    assert (told.failures, told.wrong) == ({}, [])


async def more_answers(told: Told, count: int) -> None:
    """Wait until callers have received ``count`` more answers."""
    wanted = told.answers + count
    await until(lambda: told.answers >= wanted, f"{count} answers")


def in_balance(three: Replicated) -> Callable[[], bool]:
    """Return a condition: each predictor has received its share of the last queries."""
    last: dict[str, float] = {}

    def look() -> bool:
        asked: dict[str, float] = {}
        for name in ("hits", "misses"):
            for predictor, count in three.counted(name).items():
                asked[predictor] = asked.get(predictor, 0.0) + count
        if not last:
            last.update(asked)
        shares = {predictor: count - last[predictor] for predictor, count in asked.items()}
        total = sum(shares.values())
        if total < WINDOW:
            return False
        last.update(asked)
        return min(shares.values()) > 0.6 * total / REPLICAS

    return look


def free_ports(count: int) -> list[int]:
    """Return ``count`` consecutive free ports."""
    for first in range(20_000, 30_000, count):
        ports = range(first, first + count)
        with ExitStack() as listeners:
            try:
                for port in ports:
                    listeners.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return list(ports)
    raise AssertionError("no ports are free")
