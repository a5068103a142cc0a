"""One document on its way through a pipeline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from grpc import StatusCode

from frontend.engines.backend import ManifestsAtHand
from frontend.engines.submission import Done, Submit, Withdraw
from frontend.pipelines.call import PipelineCall
from frontend.pipelines.counts import StepCounts
from frontend.pipelines.languages import LanguageDetector
from frontend.pipelines.onward import StepLate, Turning, failure, turning
from frontend.pipelines.votes import counted, labels_wanted, threshold_wanted
from grpc_http2.alarms import Alarm, Alarms
from serving.call.deadline import Deadline
from serving.call.spans import Span
from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.errors import DeadlineExceeded, ModelUnusable, ServingError, deadline_passed, status_of
from serving.domain.model_id import ModelId
from serving.domain.pipelines.pipeline import MOST_QUESTIONS, Pipeline
from serving.domain.pipelines.step import Step
from serving.domain.prediction import Fallback, ModelVersion, Onward, Outcome, PathStep, Prediction, Query, ScoredLabel


class PipelineModel(NamedTuple):
    """A pipeline, as a model among others."""

    model_id: ModelId
    version: str
    """Version in its manifest."""
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Objects that the walks through all pipelines of a frontend share."""

    plane: Submit
    """Receiver of the questions to models."""
    languages: LanguageDetector
    alarms: Alarms
    manifests: ManifestsAtHand
    counts: StepCounts


class Walk:
    """Way of one document. Its steps follow one another without a task: outcomes come by callback.

    Args:
        model: the pipeline.
        around: what all walks share.
        query: the caller's query.
        call: the call to the models.
        done: receives the pipeline's answer, or the error.
    """

    def __init__(
        self, model: PipelineModel, around: Surroundings, query: Query, call: PipelineCall, done: Done
    ) -> None:
        self.has_ended = False
        """Whether the outcome was reported."""
        self.around = around
        self.query = query
        self.call = call
        self._model = model
        self._done = done
        self._path: list[PathStep] = []
        self._unanswered_seconds = 0.0
        self._stay: _Stay | None = None

    def begin(self) -> None:
        """Take the first step."""
        self._take(self._model.pipeline.start)

    def withdraw(self) -> None:
        """End the walk: no caller waits for its answer."""
        stay, self._stay = self._stay, None
        if stay is None:
            return
        stay.leave()
        if self.call.deadline.remaining() <= 0.0:
            # The caller does not see this step, but who looks for the one that hangs does.
            taken = stay.taken(deadline_passed(), Turning(Onward.LATE))
            self.around.counts.count(self._model.model_id, taken)

    def _take(self, name: str) -> None:
        self._stay = _Stay(self, name, self._model.pipeline.steps[name])
        self._stay.begin()

    def go_on(self, stay: _Stay, outcome: Outcome, *, late: bool) -> None:
        """Take the next step, or report the outcome of the last one."""
        turn = turning(stay.step, outcome)
        if late:
            turn = Turning(Onward.LATE, stay.step.otherwise or "")
        if isinstance(outcome, Prediction) and turn.onward is Onward.ANSWERED:
            outcome = self._judged(outcome)
        taken = stay.taken(outcome, turn)
        self._path.append(taken)
        if not isinstance(outcome, Prediction):
            self._unanswered_seconds += taken.seconds
            self.call.note_unanswered(self._unanswered_seconds)
        self.around.counts.count(self._model.model_id, taken)
        if turn.next:
            self._take(turn.next)
            return
        self._stay = None
        self.has_ended = True
        if isinstance(outcome, Prediction) and turn.onward is Onward.ANSWERED:
            model = self._model
            label, score, best, _, _, fallback, explanation, _ = outcome
            path = tuple(self._path)
            self._done(Prediction(label, score, best, model.model_id, model.version, fallback, explanation, path))
        else:
            self._done(failure(self._model.model_id, stay.name, turn.onward, outcome, stay.step))

    def _judged(self, answer: Prediction) -> Prediction:
        """Return the answer by the caller's threshold, which a step that could go on did not pass to its model."""
        threshold = self.query.threshold
        if threshold is None or answer.fallback is not None or answer.score >= threshold:
            return answer
        manifest = self.around.manifests.manifest_at_hand(_model_behind(answer))
        label = FALLBACK_LABEL if manifest is None else manifest.confidence.fallback
        if answer.label == label:
            return answer
        best = ScoredLabel(answer.label, answer.score)
        return answer._replace(label=label, score=dict(answer.best).get(label, 0.0), fallback=Fallback(best, threshold))


class _Stay:
    """Stay of a document at one step, from the question to the outcome."""

    def __init__(self, walk: Walk, name: str, step: Step) -> None:
        self.name = name
        self.step = step
        self._walk = walk
        self._began = time.monotonic()
        self._answers: dict[int, Prediction] = {}
        self._failed: int | None = None
        self._waits: list[Withdraw] = []
        self._alarm: Alarm | None = None
        self._has_ended = False
        span = walk.call.span
        self._span: Span | None = None
        if span is not None:
            self._span = span.child("step")
            self._span.set_attribute("intent.step", name)

    def begin(self) -> None:
        """Ask the models."""
        walk, step = self._walk, self.step
        if step.detect is not None:
            self._end(walk.around.languages.detect(walk.query.document))
            return
        if not walk.call.questions.take(len(step.ask)):
            self._end(ModelUnusable(f"the document was sent to {MOST_QUESTIONS} models already; ask fewer of them"))
            return
        call = walk.call if self._span is None else walk.call.with_span(self._span)
        if step.within is not None and step.within < call.deadline.remaining():
            call = call.with_deadline(Deadline.after(step.within))
            self._alarm = walk.around.alarms.after(step.within, self._too_late)
        for index, model in enumerate(step.ask):
            wait = walk.around.plane.submit(self._question(model), call, _Answered(self, index))
            if self._has_ended:
                return
            if wait is not None:
                self._waits.append(wait)

    def leave(self) -> None:
        """Withdraw what is still asked."""
        self._has_ended = True
        self._finish()

    def answered(self, index: int, outcome: Prediction | Exception) -> None:
        """Take the outcome of one of the models."""
        if self._has_ended:
            return
        if isinstance(outcome, Prediction):
            if self.step.vote is None:
                self._end(outcome)
                return
            self._answers[index] = outcome
            if len(self._answers) == len(self.step.ask):
                answers = [answer for _, answer in sorted(self._answers.items())]
                self._end(counted(self.step.vote, answers, self._walk.query.k))
        elif isinstance(outcome, DeadlineExceeded) and not isinstance(outcome, StepLate) and self._alarm is not None:
            self._too_late()
        else:
            self._failed = index
            self._end(outcome if isinstance(outcome, ServingError) else _internal(outcome))

    def taken(self, outcome: Outcome, turn: Turning) -> PathStep:
        """Return this step for the path."""
        seconds = time.monotonic() - self._began
        if not isinstance(outcome, Prediction):
            code = status_of(outcome).code
            return PathStep(self.name, self._models_without_answer(), "", 0.0, seconds, turn.onward, turn.next, code)
        label, score, _, model_id, version, fallback, _, path = outcome
        models: tuple[ModelVersion, ...] = (ModelVersion(model_id, version),) if self.step.ask else ()
        votes: tuple[ScoredLabel, ...] = ()
        if self.step.vote is not None:
            answers = [answer for _, answer in sorted(self._answers.items())]
            models = tuple(ModelVersion(answer.model_id, answer.model_version) for answer in answers)
            votes = tuple(ScoredLabel(answer.label, answer.score) for answer in answers)
        onward, after = turn
        return PathStep(self.name, models, label, score, seconds, onward, after, StatusCode.OK, path, votes, fallback)

    def _models_without_answer(self) -> tuple[ModelVersion, ...]:
        """Return the model that failed, or those that were late, as the definition writes them."""
        asked = self.step.ask
        if self._failed is not None:
            return (ModelVersion(asked[self._failed], ""),)
        return tuple(ModelVersion(model, "") for index, model in enumerate(asked) if index not in self._answers)

    def _question(self, model: str) -> Query:
        query, step = self._walk.query, self.step
        if step.route:
            # The answer only shows the way.
            return Query(model, query.document, 0 if step.vote is None else labels_wanted(step.vote, 0), key=query.key)
        # A step that can go on has to know whether its models fall back by their own thresholds.
        k, threshold = query.k, query.threshold if step.otherwise is None else None
        if step.vote is not None:
            k, threshold = labels_wanted(step.vote, k), threshold_wanted(step.vote, threshold)
        return Query(model, query.document, k, threshold, query.explain, query.key)

    def _too_late(self) -> None:
        if not self._has_ended:
            self._end(deadline_passed(), late=True)

    def _end(self, outcome: Outcome, *, late: bool = False) -> None:
        self._has_ended = True
        self._finish("" if isinstance(outcome, Prediction) else status_of(outcome).code.name)
        self._walk.go_on(self, outcome, late=late)

    def _finish(self, fault: str = "CANCELLED") -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._span is not None:
            self._span.end(fault)
        for withdraw in self._waits:
            withdraw()
        self._waits.clear()


class _Answered:
    """Callback for the outcome of one model of a step."""

    __slots__ = ("_index", "_stay")

    def __init__(self, stay: _Stay, index: int) -> None:
        self._stay = stay
        self._index = index

    def __call__(self, outcome: Prediction | Exception) -> None:
        self._stay.answered(self._index, outcome)


def _model_behind(answer: Prediction) -> ModelId:
    """Return the model that gave an answer, through all pipelines; of several that voted, the first."""
    model_id = answer.model_id
    path = answer.path
    while path and path[-1].models:
        model_id = path[-1].models[0].model_id
        path = path[-1].path
    return ModelId(model_id)


def _internal(error: Exception) -> ServingError:
    status = status_of(error)
    internal = ServingError(status.message)
    internal.__cause__ = error
    return internal
