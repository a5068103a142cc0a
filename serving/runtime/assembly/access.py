"""Access control in front of a workload, as its settings configure it. For composition roots."""

from __future__ import annotations

from dataclasses import replace

from serving.access.configured import ConfiguredAccess
from serving.access.metrics import AccessCollector
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.transport.guards import Access, OpenAccess


def access_of(settings: ServerSettings) -> Access:
    """Return the configured access: without an access file, every caller may do everything.

    Called on the event loop that serves.

    Raises:
        InvalidAccessFile: the file cannot be used.
    """
    if settings.access_file is None:
        return OpenAccess()
    # Reading certificates loads megabytes of libraries, which a service without an access file does not need.
    from serving.access.certificates import certificate_names  # noqa: PLC0415

    return ConfiguredAccess(settings.access_file, certificate_names)


def behind(access: Access, workload: Workload) -> Workload:
    """Return ``workload`` behind ``access``; closing the workload also closes ``access``."""
    if not isinstance(access, ConfiguredAccess):
        return workload
    return replace(
        workload.closing(access.close),
        guards=replace(workload.guards, access=access),
        collectors=[*workload.collectors, AccessCollector(access.counters)],
    )
