"""What is asked of a model and what it answers, in the product's own terms: no protobuf, no engine.

Named tuples, because each call makes several: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

import functools
import json
import math
from typing import NamedTuple

from serving.domain.errors import ServingError
from serving.domain.explanation import Explanation


class Query(NamedTuple):
    """One document for one model. ``model_id`` is as the caller wrote it, not yet checked."""

    model_id: str
    document: str
    k: int = 0
    """How many of the best labels to return beside the label."""
    threshold: float | None = None
    """The least score of an answer, from 0 to 1; ``None`` leaves it to the model's manifest."""
    explain: tuple[str, ...] | None = None
    """Labels to explain beside the best one; ``None`` asks for no explanation."""
    key: str = ""
    """Queries of one key get the same side of a canary."""
    caller: str = ""
    """The identity in whose name a frontend asks."""
    until: float = math.inf
    """When its own caller waits no more, in seconds on the monotonic clock, where a call serves several callers."""

    def asked_until(self, moment: float) -> Query:
        """Return the same query with another ``until``: the last field, so that no other has to be named."""
        return Query(*self[:-1], moment)


class ScoredLabel(NamedTuple):
    """A label and its probability, from 0 to 1."""

    label: str
    score: float


class Fallback(NamedTuple):
    """What the answer would have been without a threshold."""

    best: ScoredLabel
    """The label with the highest score."""
    threshold: float
    """What that score was below."""


class Prediction(NamedTuple):
    """A model's answer to one query."""

    label: str
    """The label with the highest score, or the fallback label."""
    score: float
    """The probability of that label, from 0 to 1; 0 for a fallback label that is none of the model's own."""
    best: tuple[ScoredLabel, ...]
    """The k best labels, highest score first; empty where none were asked for."""
    model_id: str
    model_version: str
    fallback: Fallback | None = None
    """Set where the best label's score was below the threshold."""
    explanation: Explanation | None = None
    """Set where it was asked for."""

    @property
    def response(self) -> str:
        """The answer as the JSON text that clients of the book's sample service read."""
        return _response_text(self.label)


# A service has few labels beside the number of its answers.
@functools.lru_cache(maxsize=1 << 14)
def _response_text(label: str) -> str:
    return json.dumps({"result": label})


def label_in(response: str) -> str:
    """Return the label of a response in JSON text: all that a predictor of the book's system answers with.

    Raises:
        ServingError: it is not such a text.
    """
    if not response:
        return ""
    try:
        answer = json.loads(response)
    except ValueError as error:
        raise ServingError("the predictor's answer is not understood; bring both services to one version") from error
    match answer:
        case {"result": str() as label}:
            return label
    raise ServingError("the predictor's answer is not understood; bring both services to one version")


Outcome = Prediction | ServingError
"""Of one query of a batch: its answer, or why it has none."""
