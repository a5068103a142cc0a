"""Counts of the steps that documents take through pipelines."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection
from typing import Final

from serving.domain.prediction import Onward, PathStep
from serving.telemetry.histogram import Histogram

STEP_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Histogram bounds of the time that a step takes, in seconds."""
MOST_STEPS_COUNTED: Final = 4096
"""Maximum number of steps that are counted. Beyond it, those of the pipeline that was asked longest ago are forgotten;
a pipeline that has more of them, as a router to thousands of models, keeps the newest."""


class StepCount:
    """Counts of one step of one pipeline."""

    __slots__ = ("onward", "seconds")

    def __init__(self) -> None:
        self.onward: Counter[Onward] = Counter()
        """Number of documents by what became of them at this step."""
        self.seconds = Histogram(STEP_SECONDS)


class StepCounts:
    """Counts of all pipelines. Belongs to one event loop; any thread may read them."""

    def __init__(self, most: int = MOST_STEPS_COUNTED) -> None:
        self._most = most
        self._number = 0
        self._pipelines: OrderedDict[str, dict[str, StepCount]] = OrderedDict()

    def count(self, pipeline: str, step: PathStep) -> None:
        """Count a step that a document has taken through ``pipeline``, a model id."""
        steps = self._pipelines.get(pipeline)
        if steps is None:
            steps = self._pipelines[pipeline] = {}
        else:
            self._pipelines.move_to_end(pipeline)
        counts = steps.get(step.name)
        if counts is None:
            self._make_room(steps)
            counts = steps[step.name] = StepCount()
            self._number += 1
        counts.onward[step.onward] += 1
        counts.seconds.observe(step.seconds)

    def keep(self, pipeline: str, names: Collection[str]) -> None:
        """Forget the steps of a pipeline that its present definition, with steps of these names, does not have."""
        steps = self._pipelines.get(pipeline, {})
        for name in [name for name in steps if name not in names]:
            del steps[name]
            self._number -= 1

    def _make_room(self, steps: dict[str, StepCount]) -> None:
        """Forget steps until there is room for one more of ``steps``, those of the pipeline that was asked last."""
        while self._number >= self._most and len(self._pipelines) > 1:
            _, forgotten = self._pipelines.popitem(last=False)
            self._number -= len(forgotten)
        if self._number >= self._most:
            del steps[next(iter(steps))]
            self._number -= 1

    def of_pipelines(self) -> list[tuple[str, dict[str, StepCount]]]:
        """Return the counts by pipeline and step, the pipeline that was asked last first."""
        return [(pipeline, steps.copy()) for pipeline, steps in reversed(self._pipelines.copy().items())]
