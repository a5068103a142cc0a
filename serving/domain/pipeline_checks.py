"""Checks of a pipeline against the models that it asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple, TypeAlias

from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.errors import ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of
from serving.domain.pipelines.languages import LANGUAGES, UNCERTAIN
from serving.domain.pipelines.pipeline import MOST_DEPTH, MOST_QUESTIONS, Pipeline, shown
from serving.domain.pipelines.step import Step, Vote

_MOST_LABELS_SHOWN: Final = 5
# A comparison takes some ten microseconds, and a definition may have thousands of faults, each with thousands of names
# to compare with.
_MOST_HINTS: Final = 16
_MOST_COMPARED: Final = 512


class Version(NamedTuple):
    """A model, or a live version of a name."""

    model_id: ModelId
    manifest: Manifest


Asked: TypeAlias = Mapping[str, Sequence[Version] | ServingError]
"""By model that a pipeline, or a pipeline that it asks, may ask, as the definition writes it: every version that may
answer, or the reason that there is none."""


UNKNOWN: Final[Sequence[Version]] = ()
"""Versions of a model about which nothing may be told: no fault is found in what it is asked."""


def asked_next(models: Sequence[str], asked: Asked) -> list[str]:
    """Return the models that pipelines among ``models`` may ask, and that ``asked`` does not have yet."""
    inner = (further for model in models for pipeline in _pipelines_of(model, asked) for further in pipeline.models)
    return [model for model in dict.fromkeys(inner) if model not in asked]


def faults_of(model_id: ModelId, pipeline: Pipeline, asked: Asked) -> list[str]:
    """Return what is wrong with a pipeline, given the models that it asks; each fault names its step.

    Args:
        model_id: id of the pipeline.
        pipeline: the pipeline.
        asked: the models that it asks, and those that pipelines among these ask, :data:`MOST_DEPTH` pipelines deep.
    """
    faults: list[str] = []
    depths: dict[str, int] = {}
    questions: dict[str, int] = {}
    ways = _Ways(model_id, asked)
    for name, step in pipeline.steps.items():
        for model in step.ask:
            found = asked[model]
            # The pipeline itself need not exist yet.
            if isinstance(found, ServingError) and model != model_id:
                faults.append(_missing(name, model, found, pipeline, ways))
                continue
            way = ways.back(model)
            if way:
                faults.append(f"step {shown(name)} leads back to the pipeline itself: {' -> '.join((model_id, *way))}")
            elif ways.pipelines(model) >= MOST_DEPTH:
                faults.append(
                    f"step {shown(name)} asks {model}, a pipeline that asks further pipelines;"
                    f" at most {MOST_DEPTH} may ask one another in turn"
                )
            else:
                depths[model] = ways.depth(model)
                questions[model] = ways.questions(model)
        faults.extend(_faults_of_routes(name, step, ways))
    faults.extend(_faults_of_inner(pipeline, ways, asked))
    depth = pipeline.depth_by(depths)
    if depth > MOST_DEPTH:
        faults.append(
            f"step {shown(pipeline.start)} begins a way of {depth} steps, with those of the pipelines that are asked;"
            f" at most {MOST_DEPTH} are allowed"
        )
    number = pipeline.questions_by(questions)
    if number > MOST_QUESTIONS:
        faults.append(
            f"step {shown(pipeline.start)} begins a way on which a document is sent to {number} models, with those of"
            f" the pipelines that are asked; at most {MOST_QUESTIONS} are allowed"
        )
    return faults


def _faults_of_inner(pipeline: Pipeline, ways: _Ways, asked: Asked) -> Iterator[str]:
    """Yield the faults of the pipelines that this one asks, and of those that they ask, each once."""
    seen: set[str] = set()
    due = [model for model in pipeline.models if not ways.back(model)]
    while due:
        model = due.pop(0)
        if model in seen:
            continue
        seen.add(model)
        for inner in _pipelines_of(model, asked):
            for name, step in inner.steps.items():
                faults = [
                    _missing(name, further, found, inner, ways)
                    for further in step.ask
                    if isinstance(found := asked.get(further), ServingError)
                ]
                faults.extend(_faults_of_routes(name, step, ways))
                yield from (f"the pipeline {model}: {fault}" for fault in faults)
            due.extend(inner.models)


def _missing(name: str, model: str, error: ServingError, pipeline: Pipeline, ways: _Ways) -> str:
    """Return the fault of a step that asks a model that there is not, which may be meant as a step."""
    # A target that no step is written for is a step that asks the model of its name.
    written = [each for each, step in pipeline.steps.items() if step.ask != (each,)] if name == model else []
    close = ways.close(model, written)
    meant = f"; did you mean the step {shown(close)}?" if close else ""
    return f"step {shown(name)} asks {model}: {error}{meant}"


class _Ways:
    """Ways from one pipeline to models and through others. Each model is looked at once, however many lead to it."""

    def __init__(self, model_id: ModelId, asked: Asked) -> None:
        self._model_id = model_id
        self._asked = asked
        self._without_a_way_back: set[str] = set()
        self._pipelines: dict[str, int] = {}
        self._depths: dict[str, int] = {}
        self._questions: dict[str, int] = {}
        self._labels: dict[str, frozenset[str] | None] = {}
        self._hints_left = _MOST_HINTS

    def back(self, model: str, way: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a way from a model to the pipeline, or to one that the way has passed; empty if there is none."""
        if model in way or _may_be(self._model_id, model, self._asked):
            return (*way, model)
        if model not in self._without_a_way_back:
            for further in self._models_of(model):
                found = self.back(further, (*way, model))
                if found:
                    return found
            self._without_a_way_back.add(model)
        return ()

    def pipelines(self, model: str) -> int:
        """Return the number of pipelines on the longest way that begins with ``model``. REQUIRES: no way leads back."""
        if model not in self._pipelines:
            further = (self.pipelines(each) for each in self._models_of(model))
            is_one = bool(_pipelines_of(model, self._asked))
            self._pipelines[model] = is_one + max(further, default=0)
        return self._pipelines[model]

    def depth(self, model: str) -> int:
        """Return the number of steps that a question to ``model`` takes. REQUIRES: no way leads back."""
        if model not in self._depths:
            depths = (
                inner.depth_by({further: self.depth(further) for further in inner.models})
                for inner in _pipelines_of(model, self._asked)
            )
            self._depths[model] = max(depths, default=1)
        return self._depths[model]

    def questions(self, model: str) -> int:
        """Return the number of models that a question to ``model`` may go to. REQUIRES: no way leads back."""
        if model not in self._questions:
            inner = (
                pipeline.questions_by({further: self.questions(further) for further in pipeline.models})
                for pipeline in _pipelines_of(model, self._asked)
            )
            self._questions[model] = 1 + max(inner, default=0)
        return self._questions[model]

    def close(self, text: str, among: Collection[str]) -> str:
        """Return the name that ``text`` may be meant as; empty if none is close, or enough were looked for."""
        if self._hints_left <= 0 or len(among) > _MOST_COMPARED:
            return ""
        self._hints_left -= 1
        return next(iter(get_close_matches(text, among, 1)), "")

    def labels_of_step(self, step: Step) -> frozenset[str] | None:
        """Return the labels that a step's models may answer; ``None`` if a manifest does not list them."""
        # Models that disagree fall back, whatever their thresholds.
        labels = {FALLBACK_LABEL} if step.vote is Vote.MAJORITY and step.otherwise is None else set()
        for model in step.ask:
            own = self._labels_of(model)
            if own is None:
                return None
            labels |= own
        return frozenset(labels)

    def _labels_of(self, model: str) -> frozenset[str] | None:
        if model not in self._labels:
            # Pipelines that lead in a circle have no labels.
            self._labels[model] = None
            found = self._asked.get(model)
            if found and not isinstance(found, ServingError):
                self._labels[model] = _union(self._labels_in(version.manifest) for version in found)
        return self._labels[model]

    def _labels_in(self, manifest: Manifest) -> frozenset[str] | None:
        pipeline = manifest.pipeline
        if pipeline is not None:
            return _union(self.labels_of_step(step) for step in pipeline.steps.values() if not step.route)
        if not manifest.classes:
            return None
        threshold = manifest.confidence.threshold
        return frozenset(manifest.labels) | ({manifest.confidence.fallback} if threshold > 0.0 else set())

    def _models_of(self, model: str) -> Iterator[str]:
        for inner in _pipelines_of(model, self._asked):
            yield from inner.models


def _may_be(model_id: ModelId, model: str, asked: Asked) -> bool:
    """Return whether ``model`` is ``model_id``, or a name or a label that a release may lead to it."""
    if reference_of(ModelId(model)).name != reference_of(model_id).name:
        return False
    found = asked.get(model, ())
    is_a_version = not isinstance(found, ServingError) and [version.model_id for version in found] == [model]
    return model == model_id or not is_a_version


def _pipelines_of(model: str, asked: Asked) -> Sequence[Pipeline]:
    found = asked.get(model, ())
    if isinstance(found, ServingError):
        return ()
    return [version.manifest.pipeline for version in found if version.manifest.pipeline is not None]


def _faults_of_routes(name: str, step: Step, ways: _Ways) -> Iterator[str]:
    """Yield a fault for labels without a route, and for routes of labels that no model has."""
    if not step.route:
        return
    labels = LANGUAGES if step.detect else ways.labels_of_step(step)
    if labels is None:
        return
    what = "the detector knows no language" if step.detect else f"{' or '.join(step.ask)} has no label"
    for label in step.route:
        if label not in labels:
            close = "" if step.detect else ways.close(label, labels)
            hint = _hint_of_language(label) if step.detect else f"; did you mean {shown(close)}?" if close else ""
            yield f"step {shown(name)} has a route for {shown(label)}, but {what} of this name{hint}"
    missing = sorted(labels - step.route.keys())
    if missing and step.otherwise is None:
        more = f" and {len(missing) - _MOST_LABELS_SHOWN} more" if len(missing) > _MOST_LABELS_SHOWN else ""
        listed = ", ".join(map(shown, missing[:_MOST_LABELS_SHOWN]))
        yield f'step {shown(name)} has no route for {listed}{more}, and no "otherwise"'


def _hint_of_language(label: str) -> str:
    """Return what to write instead of a label that is no code of a language."""
    if label == UNCERTAIN:
        return '; texts whose language is not certain go "otherwise"'
    code, dash, _ = label.lower().replace("_", "-").partition("-")
    if code in LANGUAGES:
        return f"; write {shown(code)}" + ("" if not dash else ", which has all its regions and scripts")
    return "; write a code of two or three letters, such as de"


def _union(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    union: set[str] = set()
    for each in sets:
        if each is None:
            return None
        union |= each
    return frozenset(union)
