"""Explanation of one label: what words and tokens add to it, and how its score results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from intentctl.explanations.shares import Token, Word, tokens_of, words_of
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Prediction, ScoredLabel


@dataclass(frozen=True, slots=True)
class Account:
    """Account of one label."""

    label: str
    score: float
    """Probability of the label, from 0 to 1."""
    bias: float
    logit: float
    temperature: float
    words: Sequence[Word]
    tokens: Sequence[Token]
    """Tokens, the strongest first."""

    @property
    def added(self) -> float:
        """Sum of what all tokens add."""
        return math.fsum(token.adds for token in self.tokens)

    @property
    def sentence(self) -> str:
        """Sentence that explains how the parts make up the score."""
        divided = "" if self.temperature == 1.0 else f", over the temperature {self.temperature:.4g}"
        return (
            f"{self.bias:+z.3f} of the bias and {self.added:+z.3f} of the tokens add up to the logit"
            f" {self.logit:+z.3f}; among the logits of all labels{divided} it makes a score of {self.score:.3f}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the account as JSON fields."""
        return {
            "label": self.label,
            "score": self.score,
            "bias": self.bias,
            "logit": self.logit,
            "words": [
                {"word": word.text, "unknown": word.is_unknown, "own": word.own, "ngrams": word.of_ngrams}
                for word in self.words
            ],
            "tokens": [
                {
                    "token": token.text,
                    "kind": token.kind,
                    "unknown": token.is_unknown,
                    "times": token.times,
                    "adds": token.adds,
                }
                for token in self.tokens
            ],
        }


def accounts_of(prediction: Prediction, explanation: Explanation) -> list[Account]:
    """Return the account of each explained label, the best one first."""
    best = _own_vote(prediction, explanation) or best_of(prediction)
    return [_account(label, explanation, best, explanation.labels[0].logit) for label in explanation.labels]


def best_of(prediction: Prediction) -> ScoredLabel:
    """Return the label with the highest score, whatever the threshold."""
    return prediction.fallback.best if prediction.fallback else ScoredLabel(prediction.label, prediction.score)


def answer_of(prediction: Prediction) -> str:
    """Return the answer in words, and if it fell back, the reason."""
    fallback, explanation = prediction.fallback, prediction.explanation
    answer = (
        f"{prediction.label}, with a score of {prediction.score:.3f}"
        if fallback is None
        else f"{prediction.label}: the best label is {fallback.best.label}, and its score of {fallback.best.score:.3f}"
        f" is below the threshold of {fallback.threshold:g}"
    )
    if explanation is not None and explanation.model_id:
        answer += f"; several models voted, and this is how {explanation.model_id} came to its answer"
    return answer


def _own_vote(prediction: Prediction, explanation: Explanation) -> ScoredLabel | None:
    """Return the answer of the model that is explained, if it is one of several that voted for it."""
    step = prediction.path[-1] if explanation.model_id and prediction.path else None
    while step is not None and not step.votes:
        step = step.path[-1] if step.path else None
    if step is None:
        return None
    votes = {model.model_id: vote for model, vote in zip(step.models, step.votes, strict=True)}
    vote = votes.get(explanation.model_id)
    return vote if vote is not None and vote.label == explanation.labels[0].label else None


def _account(label: LabelExplanation, explanation: Explanation, best: ScoredLabel, highest: float) -> Account:
    return Account(
        label.label,
        # The ratio of two probabilities is that of the exponentials of their logits.
        best.score * math.exp((label.logit - highest) / explanation.temperature),
        label.bias,
        label.logit,
        explanation.temperature,
        words_of(explanation, label),
        tokens_of(explanation, label),
    )
