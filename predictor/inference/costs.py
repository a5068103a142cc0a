"""Estimates of the work that queries make: long work leaves the event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from predictor.model.intent_model import IntentModel
from predictor.model.normalization import MAX_GROWTH
from predictor.model.tokenizer import Tokenizer
from serving.domain.prediction import Query

# Longer work leaves the event loop. In tokens, each of which may cost as much as a character of plain words.
_INLINE_TOKENS: Final = 8192
# For models that are not known yet: the tokenizer that produces the most tokens, and more labels than models have.
_MOST_TOKENS_PER_CHARACTER: Final = Tokenizer.parse("basic_english+words:5+characters:2-8").tokens_at_most(" ")
_MOST_LABELS: Final = 1 << 10
# Cost of a query in addition to its text, and of each label that the query asks for, in tokens.
_COST_OF_QUERY: Final = 64
_COST_OF_LABEL: Final = 4


def is_short_for(model: IntentModel, queries: Sequence[Query]) -> bool:
    """Return whether the answers of ``model`` take less time than handing the work to a thread and back."""
    return cost_for(model, queries) <= _INLINE_TOKENS


def is_short(queries: Sequence[Query]) -> bool:
    """Return whether the answers take less time than handing the work to a thread and back, for any model."""
    return _cost(queries) <= _INLINE_TOKENS


def cost_for(model: IntentModel, queries: Sequence[Query]) -> int:
    """Return the maximum amount of work for the answers of ``model``, in tokens."""
    return _cost(queries, model.tokenizer.tokens_at_most, len(model.labels))


def _tokens_at_most(document: str) -> int:
    """Return an upper bound on the number of tokens of ``document``, for any tokenizer."""
    return len(document) * _MOST_TOKENS_PER_CHARACTER * (1 if document.isascii() else MAX_GROWTH)


def _cost(
    queries: Sequence[Query], tokens_at_most: Callable[[str], int] = _tokens_at_most, labels: int = _MOST_LABELS
) -> int:
    """Return the maximum amount of work for the answers, in tokens.

    Args:
        queries: the queries, all of one model.
        tokens_at_most: maximum number of tokens of a document for the model's tokenizer; for any tokenizer if the
            model is not known.
        labels: number of labels that the model has, if known.
    """
    cost = _COST_OF_QUERY * len(queries)
    for query in queries:
        tokens = tokens_at_most(query.document)
        cost += tokens
        if query.k:
            cost += _COST_OF_LABEL * min(query.k, labels)
        if query.explain is not None:
            # Each token contributes to the logit of each explained label: the best label, and the requested labels.
            cost += tokens * (1 + len(query.explain))
    return cost
