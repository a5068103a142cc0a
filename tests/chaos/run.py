"""The chaos run: callers, services and a volume, and one fault after another."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from tests.chaos.callers import Callers, asked, channel_to
from tests.chaos.services import Services
from tests.chaos.tenants import Tenant, some_document
from tests.chaos.volume import Volume, small_disk
from tests.end_to_end.processes import TRANSPORT

TENANTS: Final = 12
SETTLED_SECONDS: Final = 60.0
"""Time within which each model must answer in its last version once the faults are over, in seconds."""

_RESTS: Final = (0.0, 0.2, 1.0)


@dataclass
class Report:
    """Observations of a chaos run."""

    seed: int
    faults_made: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Calls by status."""
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by status and message."""
    failures: list[str] = field(default_factory=list)
    """Wrong answers with OK, undocumented statuses, and models that do not recover."""


def run(folder: Path, seconds: float, seed: int, transport: str = TRANSPORT) -> Report:
    """Run for ``seconds``, with faults in an order that ``seed`` determines, in the empty folder ``folder``.

    The disk fills up only if this user may mount one, which is small.
    """
    report = Report(seed)
    chance = random.Random(seed)
    tenants = [Tenant(number) for number in range(TENANTS)]
    with small_disk(folder / "disk") as is_small:
        volume = Volume(folder / "disk", tenants, chance)
        services = Services(volume.root, folder, chance, transport)
        kinds = [
            volume.publish, volume.publish, volume.copy_over, volume.copy_over, volume.delete, volume.swap,
            services.kill, services.restart, services.hang, *([volume.fill] if is_small else []),
        ]  # fmt: skip
        try:
            services.wait_until_serving()
            with Callers(services.frontend.address, tenants, seed) as callers:
                end = time.monotonic() + seconds
                while time.monotonic() < end and not callers.faults:
                    make = chance.choice(kinds)
                    make()
                    report.faults_made[make.__name__] += 1
                    time.sleep(chance.choice(_RESTS))
            report.statuses, report.messages, report.failures = callers.statuses, callers.messages, callers.faults
            report.failures += _not_recovered(services.frontend.address, tenants, chance)
        finally:
            services.end()
    return report


def _not_recovered(address: str, tenants: list[Tenant], chance: random.Random) -> list[str]:
    """Return the models that do not answer in the version that was written last, in time."""
    end = time.monotonic() + SETTLED_SECONDS
    with channel_to(address) as channel:
        return [
            f"{tenant.model_id} does not answer in version {tenant.current.name}: {last}"
            for tenant in tenants
            if (last := _last_failure(channel, tenant, chance, end))
        ]


def _last_failure(channel: grpc.Channel, tenant: Tenant, chance: random.Random, end: float) -> str:
    """Ask until the answer is of the last version; return the last other answer if time runs out before."""
    while True:
        seen = asked(channel, tenant, some_document(chance))
        if seen.version == tenant.current.name and not seen.fault:
            return ""
        if time.monotonic() > end:
            return f"{seen}"
        time.sleep(0.1)
