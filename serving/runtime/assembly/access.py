"""Puts access before a workload, as its settings say. For composition roots."""

from __future__ import annotations

from dataclasses import replace

from serving.access.configured import ConfiguredAccess
from serving.access.metrics import AccessCollector
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.transport.guards import Access, OpenAccess


def access_of(settings: ServerSettings) -> Access:
    """Return who may call: everybody, where no access file is configured. Called on the event loop that serves.

    Raises:
        InvalidAccessFile: the file cannot be used.
    """
    if settings.access_file is None:
        return OpenAccess()
    # Reading certificates takes megabytes of libraries, which those who know no callers can do without.
    from serving.access.certificates import certificate_names  # noqa: PLC0415

    return ConfiguredAccess(settings.access_file, certificate_names)


def behind(access: Access, workload: Workload) -> Workload:
    """Return ``workload`` behind ``access``, which is closed with it."""
    if not isinstance(access, ConfiguredAccess):
        return workload

    async def close() -> None:
        try:
            await workload.close()
        finally:
            await access.close()

    return replace(
        workload,
        guards=replace(workload.guards, access=access),
        close=close,
        collectors=[*workload.collectors, AccessCollector(access.counters)],
    )
