"""Checks of a pipeline against the models that it asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.errors import ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of
from serving.domain.pipelines.languages import LANGUAGES
from serving.domain.pipelines.pipeline import MOST_DEPTH, Pipeline, shown
from serving.domain.pipelines.step import Step, Vote

_MOST_LABELS_SHOWN: Final = 5


class Version(NamedTuple):
    """A model, or a live version of a name."""

    model_id: ModelId
    manifest: Manifest


Asked: TypeAlias = Mapping[str, Sequence[Version] | ServingError]
"""By model that a pipeline, or a pipeline that it asks, may ask, as the definition writes it: every version that may
answer, or the reason that there is none."""


def faults_of(model_id: ModelId, pipeline: Pipeline, asked: Asked) -> list[str]:
    """Return what is wrong with a pipeline, given the models that it asks; each fault names its step.

    Args:
        model_id: id of the pipeline.
        pipeline: the pipeline.
        asked: the models that it asks, and those that pipelines among these ask.
    """
    faults: list[str] = []
    depths: dict[str, int] = {}
    passed: set[str] = set()
    for name, step in pipeline.steps.items():
        for model in step.ask:
            found = asked[model]
            # The pipeline itself need not exist yet.
            if isinstance(found, ServingError) and model != model_id:
                faults.append(f"step {shown(name)} asks {model}: {found}")
                continue
            way = _way_back(model_id, model, asked, (), passed)
            if way is not None:
                faults.append(f"step {shown(name)} leads back to the pipeline itself: {' -> '.join((model_id, *way))}")
            else:
                _depth(model, asked, depths)
        faults.extend(_faults_of_routes(name, step, asked))
    depth = pipeline.depth_by(depths)
    if depth > MOST_DEPTH:
        faults.append(
            f"step {shown(pipeline.start)} begins a way of {depth} steps, with those of the pipelines that are asked;"
            f" at most {MOST_DEPTH} are allowed"
        )
    return faults


def _way_back(
    model_id: ModelId, model: str, asked: Asked, way: tuple[str, ...], passed: set[str]
) -> tuple[str, ...] | None:
    """Return a way from a model over pipelines to ``model_id``, or to a pipeline that the way has passed, if any.

    Args:
        model_id: id of the pipeline that is checked.
        model: the model.
        asked: the models.
        way: pipelines that lead to the model.
        passed: models from which no way leads back, each of which is looked at once.
    """
    if model in way or _may_be(model_id, model, asked):
        return (*way, model)
    if model in passed:
        return None
    for inner in _pipelines_of(model, asked):
        for further in inner.models:
            found = _way_back(model_id, further, asked, (*way, model), passed)
            if found is not None:
                return found
    passed.add(model)
    return None


def _may_be(model_id: ModelId, model: str, asked: Asked) -> bool:
    """Return whether ``model`` is ``model_id``, or a name or a label that a release may lead to it."""
    if reference_of(ModelId(model)).name != reference_of(model_id).name:
        return False
    found = asked.get(model, ())
    is_a_version = not isinstance(found, ServingError) and [version.model_id for version in found] == [model]
    return model == model_id or not is_a_version


def _depth(model: str, asked: Asked, known: dict[str, int]) -> int:
    """Return the number of steps that a question to ``model`` takes, and keep it in ``known``.

    REQUIRES: no way leads back.
    """
    if model not in known:
        depths = (
            inner.depth_by({further: _depth(further, asked, known) for further in inner.models})
            for inner in _pipelines_of(model, asked)
        )
        known[model] = max(depths, default=1)
    return known[model]


def _pipelines_of(model: str, asked: Asked) -> Sequence[Pipeline]:
    found = asked.get(model, ())
    if isinstance(found, ServingError):
        return ()
    return [version.manifest.pipeline for version in found if version.manifest.pipeline is not None]


def _faults_of_routes(name: str, step: Step, asked: Asked) -> Iterator[str]:
    """Yield a fault for labels without a route, and for routes of labels that no model has."""
    if not step.route:
        return
    labels = frozenset(LANGUAGES) if step.detect else _labels([step], asked)
    if labels is None:
        return
    what = "the detector knows no language" if step.detect else f"{' or '.join(step.ask)} has no label"
    for label in step.route:
        if label not in labels:
            yield f"step {shown(name)} has a route for {shown(label)}, but {what} of this name"
    missing = sorted(labels - step.route.keys())
    if missing and step.otherwise is None:
        more = f" and {len(missing) - _MOST_LABELS_SHOWN} more" if len(missing) > _MOST_LABELS_SHOWN else ""
        listed = ", ".join(map(shown, missing[:_MOST_LABELS_SHOWN]))
        yield f'step {shown(name)} has no route for {listed}{more}, and no "otherwise"'


def labels_of(manifest: Manifest, asked: Asked) -> frozenset[str] | None:
    """Return the labels that a model may answer; ``None`` if its manifest does not list them."""
    pipeline = manifest.pipeline
    if pipeline is not None:
        return _labels(_answering(pipeline), asked)
    if not manifest.classes:
        return None
    threshold = manifest.confidence.threshold
    return frozenset(manifest.labels) | ({manifest.confidence.fallback} if threshold > 0.0 else set())


def _labels(steps: Iterable[Step], asked: Asked) -> frozenset[str] | None:
    """Return the labels that the steps may have for an answer; ``None`` if a manifest does not list them."""
    labels: set[str] = set()
    # Pipelines that ask each other in a circle have another fault; here, each model counts once.
    looked_at: set[str] = set()
    waiting = deque(steps)
    while waiting:
        step = waiting.popleft()
        if step.vote is Vote.MAJORITY and step.otherwise is None:
            # Models that disagree fall back, whatever their thresholds.
            labels.add(FALLBACK_LABEL)
        for model in step.ask:
            found = asked[model]
            if isinstance(found, ServingError):
                return None
            for version in found if model not in looked_at else ():
                inner = version.manifest.pipeline
                if inner is not None:
                    waiting.extend(_answering(inner))
                    continue
                own = labels_of(version.manifest, asked)
                if own is None:
                    return None
                labels |= own
            looked_at.add(model)
    return frozenset(labels)


def _answering(pipeline: Pipeline) -> Iterator[Step]:
    """Yield the steps whose answers may be those of the pipeline."""
    return (step for step in pipeline.steps.values() if not step.route)
