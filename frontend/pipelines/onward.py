"""Decision where a document goes after a step."""

from __future__ import annotations

from typing import Final, NamedTuple

from grpc import StatusCode

from serving.domain.errors import DeadlineExceeded, ModelUnusable, ServingError, Status, error_of, status_of
from serving.domain.model_id import ModelId
from serving.domain.pipelines.pipeline import shown
from serving.domain.pipelines.step import Step
from serving.domain.prediction import Onward, Outcome, Prediction

_MAY_GO_ON: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        # The model was deleted, or cannot be served: the next step need not suffer from that.
        StatusCode.NOT_FOUND,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.DATA_LOSS,
    }
)
"""Statuses after which a step goes on to its ``otherwise``. Others are faults of the caller, or bugs."""


class StepLate(DeadlineExceeded):
    """A step did not answer in the time that its pipeline gives it. The caller's deadline has not passed."""


class Turning(NamedTuple):
    """Where a document goes after a step, and why."""

    onward: Onward
    next: str = ""
    """Name of the next step; empty: the step's outcome is the pipeline's."""


def turning(step: Step, outcome: Outcome) -> Turning:
    """Return where a document goes after a step that had this outcome.

    An answer whose label has no route ends the pipeline as a failure if the step has no ``otherwise``;
    :func:`failure` says which.
    """
    otherwise = step.otherwise
    if not isinstance(outcome, Prediction):
        may_go_on = outcome.code in _MAY_GO_ON or isinstance(outcome, StepLate)
        return Turning(Onward.FAILED, otherwise or "" if may_go_on else "")
    if outcome.fallback is not None and otherwise is not None:
        return Turning(Onward.FELL_BACK, otherwise)
    if not step.route:
        return Turning(Onward.ANSWERED)
    route = step.route.get(outcome.label)
    if route is not None:
        return Turning(Onward.ROUTED, route)
    if otherwise is not None:
        return Turning(Onward.NO_ROUTE, otherwise)
    return Turning(Onward.NO_ROUTE if outcome.fallback is None else Onward.ANSWERED)


def failure(model_id: ModelId, name: str, reason: Onward, outcome: Outcome, step: Step) -> ServingError:
    """Return the error of the pipeline ``model_id``, which ends in the step ``name`` without an answer."""
    if reason is Onward.LATE:
        return StepLate(
            f"step {shown(name)} of {model_id} did not answer within {step.within:g} s, as the pipeline demands;"
            ' raise its "within", or give it an "otherwise", and publish the pipeline again'
        )
    if reason is Onward.NO_ROUTE and isinstance(outcome, Prediction):
        return ModelUnusable(
            f"step {shown(name)} of {model_id} has no route for the label {shown(outcome.label)};"
            ' add a route, or "otherwise", and publish the pipeline again'
        )
    status = status_of(outcome) if isinstance(outcome, ServingError) else Status(StatusCode.INTERNAL, "")
    code, message = status.code, f"step {shown(name)} of {model_id}: {status.message}"
    if code is StatusCode.NOT_FOUND:
        # The caller's model exists; one that it asks does not.
        code = StatusCode.FAILED_PRECONDITION
    error = StepLate(message) if isinstance(outcome, StepLate) else error_of(Status(code, message))
    error.retry_after = getattr(outcome, "retry_after", None)
    error.tried_enough = getattr(outcome, "tried_enough", False)
    error.__cause__ = outcome.__cause__ if isinstance(outcome, ServingError) else None
    return error
