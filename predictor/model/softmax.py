"""From logits to the label and its score: for each row its first largest, and softmax, in double precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Logits: TypeAlias = npt.NDArray[np.float64]

Winner: TypeAlias = tuple[int, float, npt.NDArray[Any]]
"""The index of the largest logit (the first of equal ones, as argmax of the book's handler has it), its probability,
and ``exp(logit - largest)`` of every logit: times that probability, the probabilities of all."""


def softmax_of_one(logits: Logits) -> Winner:
    """Return the winner of one row; shape [classes]."""
    winner = int(logits.argmax())
    exponentials = np.exp(logits - logits[winner])
    return winner, 1.0 / float(np.add.reduce(exponentials)), exponentials


def softmax(logits: Logits) -> Iterable[Winner]:
    """Return the winner of each row; shape [documents, classes]."""
    winners = logits.argmax(axis=1)
    exponentials = np.exp(logits - logits[np.arange(len(logits)), winners][:, np.newaxis])
    scores = 1.0 / np.add.reduce(exponentials, axis=1)
    return zip(winners.tolist(), scores.tolist(), exponentials, strict=True)
