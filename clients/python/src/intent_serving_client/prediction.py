"""Queries to models and their answers. Independent of protobuf and engines.

Named tuples, because each call creates several: a frozen dataclass takes three times as long to create.
"""

from __future__ import annotations

import enum
import functools
import json
import math
from typing import Any, NamedTuple

from grpc import StatusCode

from intent_serving_client.errors import ServingError
from intent_serving_client.explanation import Explanation


class Query(NamedTuple):
    """One document for one model. ``model_id`` is unchecked, as written by the caller."""

    model_id: str
    document: str
    k: int = 0
    """Number of best labels to return in addition to the label."""
    threshold: float | None = None
    """Minimum score of an answer, from 0 to 1; ``None``: the threshold of the model's manifest."""
    explain: tuple[str, ...] | None = None
    """Labels to explain in addition to the best one; ``None``: no explanation."""
    key: str = ""
    """Key of the query; queries with the same key get the same side of a canary."""
    caller: str = ""
    """Identity on whose behalf a frontend sends the query."""
    until: float = math.inf
    """Deadline of the query's own caller, in seconds on the monotonic clock, if a call serves several callers."""

    def with_deadline(self, moment: float) -> Query:
        """Return the same query with another ``until``."""
        return Query(*self[:-1], moment)


class ScoredLabel(NamedTuple):
    """A label and its probability, from 0 to 1."""

    label: str
    score: float


class Fallback(NamedTuple):
    """Answer that would have been given without a threshold."""

    best: ScoredLabel
    """The label with the highest score."""
    threshold: float
    """Threshold that the best label's score was below."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data, with the names of the gRPC API."""
        return {"best_label": self.best.label, "best_score": self.best.score, "threshold": self.threshold}


class Onward(enum.StrEnum):
    """Reason why a step of a pipeline was the last one, or was not."""

    ANSWERED = "answered"
    """The step's answer is the answer of the pipeline."""
    ROUTED = "routed"
    """The label has a route."""
    FELL_BACK = "fell back"
    """The best label's score was below the threshold."""
    NO_ROUTE = "no route"
    """The label has no route."""
    FAILED = "failed"
    """The step failed."""
    LATE = "late"
    """The step did not answer in the time that the pipeline gives it."""


class ModelVersion(NamedTuple):
    """A model that answered."""

    model_id: str
    version: str
    """Version in the model's manifest; empty if there is none."""


class PathStep(NamedTuple):
    """One step that a document took through a pipeline."""

    name: str
    """Name of the step or, if the pipeline leads to a model directly, the model id."""
    models: tuple[ModelVersion, ...]
    """Models that answered: one, or several that voted; none if a language was detected.

    If the step failed or was late: the models without an answer."""
    label: str
    """Label of the step's answer, or the language that was detected; empty if there is no answer."""
    score: float
    """Probability of the label, from 0 to 1."""
    seconds: float
    """Time that the step took."""
    onward: Onward
    next: str = ""
    """Step or model that came next; empty after the last step."""
    code: StatusCode = StatusCode.OK
    """Status of a step that failed."""
    path: tuple[PathStep, ...] = ()
    """Steps of the pipeline that this step asked, if it asked one."""
    votes: tuple[ScoredLabel, ...] = ()
    """Answer of each of ``models``, if several voted."""
    fallback: Fallback | None = None
    """Answer that the step would have given without a threshold, if it fell back."""

    def as_dict(self) -> dict[str, Any]:
        """Return the step as JSON data, with the names of the gRPC API; what is empty is left out."""
        step: dict[str, Any] = {
            "name": self.name,
            "models": [{"id": model.model_id, "version": model.version} for model in self.models],
            "label": self.label,
            "score": self.score,
            "milliseconds": self.seconds * 1e3,
            "onward": self.onward.name,
            "next": self.next,
            "code": "" if self.code is StatusCode.OK else self.code.name,
            "path": [inner.as_dict() for inner in self.path],
            "votes": [vote._asdict() for vote in self.votes],
            "fallback": None if self.fallback is None else self.fallback.as_dict(),
        }
        return {key: value for key, value in step.items() if value not in ("", [], None)}


class Prediction(NamedTuple):
    """A model's answer to one query."""

    label: str
    """The label with the highest score, or the fallback label."""
    score: float
    """Probability of the label, from 0 to 1; 0 for a fallback label that is not one of the model's own."""
    best: tuple[ScoredLabel, ...]
    """The k best labels, highest score first; empty if none were requested."""
    model_id: str
    model_version: str
    fallback: Fallback | None = None
    """Set if the best label's score was below the threshold."""
    explanation: Explanation | None = None
    """Explanation, if the query requested one."""
    path: tuple[PathStep, ...] = ()
    """Steps that led to the answer, if the model is a pipeline."""

    @property
    def response(self) -> str:
        """Answer as the JSON text that clients of the book's sample service read."""
        return _response_text(self.label)


# A service has few labels compared with the number of its answers.
@functools.lru_cache(maxsize=1 << 14)
def _response_text(label: str) -> str:
    return json.dumps({"result": label})


def label_in(response: str) -> str:
    """Return the label of a response in JSON, the whole answer of a predictor of the book's system.

    Raises:
        ServingError: the response has another form.
    """
    if not response:
        return ""
    try:
        answer = json.loads(response)
    except ValueError as error:
        raise ServingError("the predictor's answer cannot be decoded; run both services at the same version") from error
    match answer:
        case {"result": str() as label}:
            return label
    raise ServingError("the predictor's answer cannot be decoded; run both services at the same version")


Outcome = Prediction | ServingError
"""Outcome of one query of a batch: the answer, or the error."""
