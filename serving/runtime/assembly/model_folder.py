"""A workload whose model folder is watched from start to close."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.call.closing import close_in_order
from serving.files.following import Following
from serving.runtime.workload import Workload
from serving.volume.folder_watch import ModelFolderWatch


class ModelFolderCollector(Collector):
    """Reports whether the model folder can be read."""

    def __init__(self, watch: ModelFolderWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        """Return the current value of the metric. Called in any thread."""
        yield GaugeMetricFamily(
            "intent_model_folder_readable",
            "Whether the model folder can be read: 1, or 0 while it is gone, may not be read, or does not answer.",
            value=self._watch.is_readable,
        )


def with_model_folder(workload: Workload, root: Path) -> Workload:
    """Return ``workload`` with the model folder ``root`` watched while it serves, and reported in its metrics.

    The workload is not ready before the folder can be read: with no model in memory, it could answer nothing. It stays
    ready if the folder vanishes later, because it answers for the models in memory.
    """
    watch = ModelFolderWatch(root)
    following: Following | None = None

    async def get_ready() -> None:
        nonlocal following
        await watch.look()
        following = Following(watch.look, "model folder")
        await watch.wait_until_readable()
        await workload.get_ready()

    async def close() -> None:
        if following is not None:
            await following.close()

    return replace(
        workload,
        get_ready=get_ready,
        close=partial(close_in_order, close, workload.close),
        collectors=[ModelFolderCollector(watch), *workload.collectors],
    )
