"""Sends all texts of an evaluation to a model, either in a folder or behind a frontend, whatever its engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from evaluation.answers import Answer, Answers
from evaluation.errors import RowRefused
from intent_serving_client.client import IntentClient
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.errors import InvalidRequest, OutOfCapacity, ServingError
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Outcome, Prediction, Query
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore
from serving.wire.batches import outcomes_in_batches

_BATCH: Final = 256
_ANY_DOCUMENT: Final = "hello"
_MORE_LABELS_THAN_A_MODEL_HAS: Final = 1 << 16
# Tolerance for the sum of all probabilities: they are float32 on the wire, and each is rounded separately.
_SUM_TOLERANCE: Final = 1e-3

OnAnswers = Callable[[int], None]
"""Callback that is called with the number of rows answered since the last call."""


def ask_folder(
    model_dir: Path, model_id: str, texts: Sequence[str], *, threshold: float | None, on_answers: OnAnswers
) -> Answers:
    """Return the answers of a model that is loaded from a model folder as the predictor loads it.

    Args:
        model_dir: the folder that holds one folder per model.
        model_id: the model.
        texts: the texts to send, at least one.
        threshold: the threshold to use instead of the manifest's.
        on_answers: called after each batch.

    Raises:
        RowRefused: the model has no answer to a text.
        ServingError: the model cannot be loaded.
    """
    store = ModelStore(model_dir)
    checked_id = Inventory(store).answering(parse_model_id(model_id))
    loader = Loader(store, FileLimits())
    model = loader.load(checked_id, loader.fingerprint(checked_id))
    queries = [Query(model_id, text, threshold=threshold) for text in texts]
    return Answers(
        model_id,
        model.version,
        frozenset(model.labels),
        model.confidence.fallback,
        model.confidence.threshold if threshold is None else threshold,
        _answered(_predicted(model, queries), on_answers),
    )


def ask_frontend(
    client: IntentClient, model_id: str, texts: Sequence[str], *, threshold: float | None, on_answers: OnAnswers
) -> Answers:
    """Return the answers of a model behind a frontend. The other arguments are those of :func:`ask_folder`.

    Raises:
        RowRefused: a text is refused.
        ServingError: the frontend does not answer, or does not answer for this model.
    """
    labels = _labels(client, model_id)
    queries = (Query(model_id, text, threshold=threshold) for text in texts)
    seen = _Seen(threshold)
    rows = _answered(map(seen.look, outcomes_in_batches(client, queries)), on_answers)
    if labels is not None:
        labels |= {row.best for row in rows}
    return Answers(model_id, seen.version, labels, seen.fallback, seen.threshold, rows)


class _Seen:
    """Facts about a model that the answers of its frontend reveal."""

    def __init__(self, threshold: float | None) -> None:
        self.version = ""
        self.fallback = FALLBACK_LABEL
        self.threshold = self._asked = threshold

    def look(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                self.version = outcome.model_version
                if outcome.fallback is not None:
                    self.fallback = outcome.label
                    # The models of a pipeline have thresholds of their own, and it has none.
                    if self._asked is None and not outcome.path:
                        self.threshold = outcome.fallback.threshold
        return outcomes


def _predicted(model: IntentModel, queries: Sequence[Query]) -> Iterator[Sequence[Outcome]]:
    for start in range(0, len(queries), _BATCH):
        yield model.predict(queries[start : start + _BATCH])


def _answered(batches: Iterable[Sequence[Outcome]], on_answers: OnAnswers) -> tuple[Answer, ...]:
    answers: list[Answer] = []
    for outcomes in batches:
        for outcome in outcomes:
            if isinstance(outcome, InvalidRequest | OutOfCapacity):
                raise RowRefused(len(answers) + 1, outcome)
            if isinstance(outcome, ServingError):
                raise outcome
            answers.append(Answer.of(outcome))
        on_answers(len(outcomes))
    return tuple(answers)


def _labels(client: IntentClient, model_id: str) -> frozenset[str] | None:
    """Return all labels of a model; ``None`` if its engine does not return all of them."""
    try:
        best = client.predict(model_id, _ANY_DOCUMENT, k=_MORE_LABELS_THAN_A_MODEL_HAS).best
    except InvalidRequest:
        return None
    is_all = math.isclose(math.fsum(label.score for label in best), 1.0, abs_tol=_SUM_TOLERANCE)
    return frozenset(label.label for label in best) if is_all and len(best) > 1 else None
