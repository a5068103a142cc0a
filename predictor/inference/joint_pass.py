"""Queries of several models, answered in one pass.

With thousands of tenants, the queries that arrive together are typically one document for each of many models. Looking
up rows and multiplying by weights is done per model; the steps after that are done for all documents in the same
handful of NumPy calls, each of which costs as much as the arithmetic of one document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from predictor.model.intent_model import IntentModel
from predictor.model.softmax import softmax
from predictor.model.traffic_counter import TrafficCounter
from serving.domain.prediction import Outcome, Query


class ModelQuery(NamedTuple):
    """A query and its model."""

    model: IntentModel
    query: Query
    counter: TrafficCounter | None
    """Counter that counts the answer."""


def answers_together(queries: Sequence[ModelQuery]) -> list[Outcome]:
    """Return the answer to each query, in order.

    REQUIRES: every model is ``is_always_finite``.
    """
    if len(queries) == 1:
        model, query, counter = queries[0]
        return model.predict([query], counter)
    # Each row is as long as that of the model with the most classes, so group models with similar numbers of classes.
    groups: dict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(queries):
        groups[len(each.model.labels).bit_length()].append(index)
    if len(groups) == 1:
        return _answers(queries)
    outcomes: dict[int, Outcome] = {}
    for members in groups.values():
        outcomes |= zip(members, _answers([queries[index] for index in members]), strict=True)
    return [outcomes[index] for index in range(len(queries))]


def _answers(queries: Sequence[ModelQuery]) -> list[Outcome]:
    widths = [len(model.labels) for model, _, _ in queries]
    # Padding classes never win, and their probability is 0.
    logits = np.full((len(queries), max(widths)), -np.inf, dtype=np.float32)
    documents = [model.encode(query.document) for model, query, _ in queries]
    for (model, _, _), document, to, width in zip(queries, documents, logits, widths, strict=True):
        # The rows of tokens are not kept: for many long documents together they would take much memory.
        model.write_logits(document, to[:width])
    scaled = logits / np.array([[model.confidence.temperature] for model, _, _ in queries])
    return [
        model.outcome(query, document, None, (winner, score, exponentials[:width]), counter)
        for (model, query, counter), document, width, (winner, score, exponentials) in zip(
            queries, documents, widths, softmax(scaled), strict=True
        )
    ]
