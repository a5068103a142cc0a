"""Calibrates the scores of a trained model on texts that it was not trained on: a temperature, and a threshold."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_LOWEST: Final = 0.05
_HIGHEST: Final = 20.0
_STEPS: Final = 60
_ABOVE_CHANCE: Final = 0.1
_GOLDEN: Final = (5**0.5 - 1) / 2


def fit_temperature(logits: Numbers, classes: Classes) -> float:
    """Return the divisor of the logits with which their softmax fits the classes best.

    A golden-section search finds the least cross-entropy (Guo et al., "On Calibration of Modern Neural Networks",
    2017). With n documents, it assumes that one in n + 2 has another class than the observed one, so that a few
    documents that are all answered correctly do not make every score certain (after Platt, "Probabilistic Outputs for
    Support Vector Machines", 1999).

    Args:
        logits: shape [documents, classes].
        classes: the right classes; shape [documents].
    """
    low, high = np.log(_LOWEST), np.log(_HIGHEST)
    for _ in range(_STEPS):
        width = (high - low) * _GOLDEN
        if _cross_entropy(logits, classes, np.exp(high - width)) < _cross_entropy(logits, classes, np.exp(low + width)):
            high = low + width
        else:
            low = high - width
    return float(np.exp((low + high) / 2))


def choose_threshold(scores: Numbers, right: npt.NDArray[np.bool_], given_up: float) -> float:
    """Return the highest threshold that gives up no more than a share of the documents.

    A document is given up if its best label is right but scores below the threshold. The choice needs no out-of-scope
    texts, because few teams have any. The threshold is interpolated between the scores of two documents, and below the
    lowest score, so that few documents do not give a high threshold.

    Args:
        scores: scores of the best labels of in-scope documents, from 0 to 1; shape [documents].
        right: whether the best label is the document's label; shape [documents].
        given_up: share of the documents that may be given up, from 0 to 1.
    """
    of_right = np.sort(scores[right])
    place = given_up * len(scores)
    if place >= len(of_right):
        return 0.0
    return float(np.interp(place, np.arange(len(of_right) + 1), [0.0, *of_right]))


def lowest_threshold(labels: int) -> float:
    """Return the lowest threshold that a model of so many labels is given: a tenth of the way from chance to certainty.

    The best of n scores is at least 1/n, so a threshold below that has no effect, and one just above it hardly any.
    """
    chance = 1.0 / labels
    return chance + _ABOVE_CHANCE * (1.0 - chance)


def _cross_entropy(logits: Numbers, classes: Classes, temperature: float) -> float:
    documents, labels = logits.shape
    scaled = logits / temperature
    highest = scaled.max(axis=1)
    normalisers = highest + np.log(np.exp(scaled - highest[:, np.newaxis]).sum(axis=1))
    of_right = scaled[np.arange(documents), classes]
    of_others = (scaled.sum(axis=1) - of_right) / max(1, labels - 1)
    doubt = 1.0 / (documents + 2)
    return float((normalisers - (1.0 - doubt) * of_right - doubt * of_others).mean())
