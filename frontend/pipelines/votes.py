"""Votes: one answer from those of several models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.pipelines.step import Vote
from serving.domain.prediction import Fallback, Prediction, ScoredLabel

_HALF = 0.5
ALL_LABELS = (1 << 16) - 1
"""Number of best labels that is more than any model has."""


def labels_wanted(vote: Vote, k: int) -> int:
    """Return the number of best labels to request from each model that votes, where the caller wants ``k``."""
    return ALL_LABELS if vote is Vote.MEAN else k


def counted(vote: Vote, answers: Sequence[Prediction], k: int) -> Prediction:
    """Return the answer of a vote. Its explanation is that of the first model whose best label wins.

    A vote by ``mean`` falls back where more than half of the models do; one by ``majority`` where no label is the
    answer of more than half of them.

    Args:
        vote: rule of the vote.
        answers: answers of the models, in the order in which the step names them.
        k: number of best labels to return.
    """
    ranked = _by_mean(answers) if vote is Vote.MEAN else _by_majority(answers)
    winner = ranked[0]
    fallen = next((answer for answer in answers if answer.fallback is not None), None)
    first = next((answer for answer in answers if _best(answer).label == winner.label), answers[0])
    number_fallen = sum(answer.fallback is not None for answer in answers)
    answer = first._replace(label=winner.label, score=winner.score, best=ranked[:k], fallback=None)
    if vote is Vote.MEAN:
        return answer if number_fallen <= len(answers) * _HALF or fallen is None else _fallen_back(answer, fallen)
    votes = sum(given.fallback is None and given.label == winner.label for given in answers)
    return answer if votes > len(answers) * _HALF else _fallen_back(answer, fallen)


def _by_mean(answers: Sequence[Prediction]) -> tuple[ScoredLabel, ...]:
    """Return all labels, the highest mean of scores first; among equals, the first model's order decides."""
    sums: dict[str, float] = defaultdict(float)
    for answer in answers:
        for label, score in answer.best or (_best(answer),):
            sums[label] += score
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(ScoredLabel(label, total / len(answers)) for label, total in ranked)


def _by_majority(answers: Sequence[Prediction]) -> tuple[ScoredLabel, ...]:
    """Return the labels that were answered, the most often answered first, then the highest sum of scores."""
    scores: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.fallback is None:
            scores[answer.label].append(answer.score)
    if not scores:
        return (_best(answers[0]),)
    ranked = sorted(scores.items(), key=lambda item: (-len(item[1]), -sum(item[1])))
    return tuple(ScoredLabel(label, sum(given) / len(given)) for label, given in ranked)


def _best(answer: Prediction) -> ScoredLabel:
    return ScoredLabel(answer.label, answer.score) if answer.fallback is None else answer.fallback.best


def _fallen_back(answer: Prediction, fallen: Prediction | None) -> Prediction:
    best = ScoredLabel(answer.label, answer.score)
    if fallen is None or fallen.fallback is None:
        return answer._replace(label=FALLBACK_LABEL, score=0.0, fallback=Fallback(best, _HALF))
    return answer._replace(label=fallen.label, score=fallen.score, fallback=Fallback(best, fallen.fallback.threshold))
