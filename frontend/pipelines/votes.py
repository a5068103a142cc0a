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


def threshold_wanted(vote: Vote, threshold: float | None) -> float | None:
    """Return the threshold to request from each model that votes, where the caller wants ``threshold``.

    A model below it has no voice in a majority. A mean is compared with it as a whole, so that no model falls back.
    """
    return 0.0 if vote is Vote.MEAN and threshold is not None else threshold


def counted(vote: Vote, answers: Sequence[Prediction], k: int) -> Prediction:
    """Return the answer of a vote. Its explanation is that of the first model whose best label wins, and names it.

    Args:
        vote: rule of the vote.
        answers: answers of the models, in the order in which the step names them.
        k: number of best labels to return.
    """
    voted = _mean(answers) if vote is Vote.MEAN else _majority(answers)
    winner = _best(voted).label
    first = next((answer for answer in answers if _best(answer).label == winner), answers[0])
    explanation = first.explanation
    if explanation is not None and not explanation.model_id:
        explanation = explanation._replace(model_id=first.model_id)
    return voted._replace(best=voted.best[:k], explanation=explanation)


def _mean(answers: Sequence[Prediction]) -> Prediction:
    """Return the label with the highest mean of scores.

    If more than half of the models fall back, so does the vote, and it is the vote of these alone: no mean of their
    scores is above that of their thresholds.
    """
    fallen = [(answer, answer.fallback) for answer in answers if answer.fallback is not None]
    if len(fallen) <= len(answers) * _HALF:
        ranked = _by_mean(answers)
        return answers[0]._replace(label=ranked[0].label, score=ranked[0].score, best=ranked, fallback=None)
    ranked = _by_mean([answer for answer, _ in fallen])
    threshold = sum(fallback.threshold for _, fallback in fallen) / len(fallen)
    label = fallen[0][0].label
    return answers[0]._replace(
        label=label, score=dict(ranked).get(label, 0.0), best=ranked, fallback=Fallback(ranked[0], threshold)
    )


def _majority(answers: Sequence[Prediction]) -> Prediction:
    """Return the label that more than half of the models answer, with the mean of their scores.

    If there is none, the vote falls back, and has shares of the models in place of scores.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.fallback is None:
            scores[answer.label].append(answer.score)
    votes = sorted(scores.items(), key=lambda item: (-len(item[1]), -sum(item[1])))
    if votes and len(votes[0][1]) > len(answers) * _HALF:
        ranked = tuple(ScoredLabel(label, sum(given) / len(given)) for label, given in votes)
        return answers[0]._replace(label=ranked[0].label, score=ranked[0].score, best=ranked, fallback=None)
    ranked = tuple(ScoredLabel(label, len(given) / len(answers)) for label, given in votes)
    ranked = ranked or (ScoredLabel(max(map(_best, answers), key=lambda best: best.score).label, 0.0),)
    label = next((answer.label for answer in answers if answer.fallback is not None), FALLBACK_LABEL)
    share = sum(answer.label == label for answer in answers) / len(answers)
    return answers[0]._replace(label=label, score=share, best=ranked, fallback=Fallback(ranked[0], _HALF))


def _by_mean(answers: Sequence[Prediction]) -> tuple[ScoredLabel, ...]:
    """Return all labels, the highest mean of scores first; among equals, the first model's order decides."""
    sums: dict[str, float] = defaultdict(float)
    for answer in answers:
        for label, score in answer.best or (_best(answer),):
            sums[label] += score
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return tuple(ScoredLabel(label, total / len(answers)) for label, total in ranked)


def _best(answer: Prediction) -> ScoredLabel:
    return ScoredLabel(answer.label, answer.score) if answer.fallback is None else answer.fallback.best
