"""Labels and scores from logits: the first largest logit of each row, and softmax, in double precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Logits: TypeAlias = npt.NDArray[np.float64]

Winner: TypeAlias = tuple[int, float, npt.NDArray[Any]]
"""Index of the largest logit (the first of equal ones, like argmax in the book's handler), its probability, and
``exp(logit - largest)`` of every logit; that probability times these values gives the probabilities of all."""


def softmax_of_one(logits: Logits) -> Winner:
    """Return the winner of one row; ``logits`` has the shape [classes]."""
    winner = int(logits.argmax())
    exponentials = np.exp(logits - logits[winner])
    return winner, 1.0 / float(np.add.reduce(exponentials)), exponentials


def softmax(logits: Logits) -> Iterable[Winner]:
    """Return the winner of each row; ``logits`` has the shape [documents, classes]."""
    winners = logits.argmax(axis=1)
    exponentials = np.exp(logits - logits[np.arange(len(logits)), winners][:, np.newaxis])
    scores = 1.0 / np.add.reduce(exponentials, axis=1)
    return zip(winners.tolist(), scores.tolist(), exponentials, strict=True)
