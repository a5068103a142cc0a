"""The network of an intent model as it serves: there is nothing between the linear layers, so they are one matrix.

``logits = mean(E[tokens]) @ W + c``, exactly the network of ``predictor.model.network`` up to rounding. For one
document this is a handful of NumPy calls, where the layers one by one cost ten times as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from predictor.model.files.tensors import Array, held_bytes
from predictor.model.layers import Layers

Bag: TypeAlias = Sequence[int]
"""The indices of a document's tokens."""

# One row for each token of all but the longest documents: with it BLAS adds rows up, in a third of the time.
_ONES: Final = np.ones(1 << 12, dtype=np.float32)

# Far above the tokens of the largest document that any service takes, and far below the largest float32.
_MOST_TOKENS: Final = 1 << 30
_LARGEST: Final = 1e36

# Bounds the products in double precision that an explanation of a long document holds at one time.
_ROWS_AT_ONCE: Final = 1 << 10


class Contributions(NamedTuple):
    """The parts of a logit."""

    parts: list[float]
    """What each token adds."""
    bias: float
    logit: float
    """The sum of all parts and the bias, rounded once, so that the order of tokens does not change it."""


class FoldedNetwork:
    """An embedding and one linear layer. Immutable, and safe to use from several threads.

    Args:
        embedding: float32, shape [tokens, dimensions].
        weight: float32, shape [dimensions, classes].
        bias: float32, shape [classes].
    """

    __slots__ = ("_bias", "_embedding", "_weight", "always_finite")

    def __init__(self, embedding: Array, weight: Array, bias: Array) -> None:
        self._embedding = embedding
        self._weight = weight
        self._bias = bias
        self.always_finite = _always_finite(embedding, weight, bias)
        """Whether no document can have logits that are not finite; so it is with every network that was trained."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the network that a state_dict holds.

        Raises:
            InvalidModelFile: as :meth:`~predictor.model.layers.Layers.of` does.
        """
        layers = Layers.of(arrays)
        first, *others = layers.linears
        # In double precision, so that folding adds no error of its own. Weights that overflow give logits that are not
        # finite, as they do unfolded, and are answered for there.
        with np.errstate(over="ignore", invalid="ignore"):
            weight = first.weight.T.astype(np.float64)
            bias = first.bias.astype(np.float64)
            for layer in others:
                turned = layer.weight.T.astype(np.float64)
                weight, bias = weight @ turned, bias @ turned + layer.bias
            return cls(layers.embedding, weight.astype(np.float32), bias.astype(np.float32))

    def logits(self, bags: Sequence[Bag]) -> Array:
        """Return the logits of each document: float32, shape [documents, classes].

        Args:
            bags: the token indices of each document. One without tokens has an embedding of zeros.
        """
        if len(bags) == 1 and self.always_finite:
            return self.logits_of_rows(self.rows(bags[0]))[np.newaxis]
        with np.errstate(over="ignore", invalid="ignore"):
            result: Array = self._means(bags) @ self._weight + self._bias
        return result

    def rows(self, bag: Bag) -> Array:
        """Return the rows of a document's tokens: float32, shape [tokens, dimensions]."""
        rows: Array = self._embedding.take(bag, 0)
        return rows

    def logits_of_rows(self, rows: Array) -> Array:
        """Return the logits of the document whose tokens have these rows: float32, shape [classes].

        REQUIRES: the network is :attr:`always_finite`.
        """
        logits = np.empty_like(self._bias)
        self.write_logits_of_rows(rows, logits)
        return logits

    def write_logits_of_rows(self, rows: Array, to: Array) -> None:
        """Write the same logits to an array of their shape."""
        # The fewest calls that do it: for one document they are what costs.
        tokens = len(rows)
        if not tokens:
            to[:] = self._bias
            return
        mean: Array = _ONES[:tokens].dot(rows) if tokens <= len(_ONES) else np.add.reduce(rows, 0)
        mean /= np.float32(tokens)
        mean.dot(self._weight, to)
        to += self._bias

    def contributions(self, rows: Array, classes: Iterable[int]) -> Iterator[Contributions]:
        """Yield for each class what each token of a document adds to its logit, and the bias of the class.

        A token's part of the mean is its row of the embedding over the number of tokens, and its part of a logit is
        that times the weights of the class: all parts and the bias together are the logit, and finite where the logit
        is.

        A part depends on the token, the class and the number of tokens, and on nothing else: equal tokens add equal
        parts, to the last bit, on every processor.
        """
        tokens = len(rows) or 1
        for index in classes:
            parts: list[float] = (self._dot_each(rows, index) / tokens).tolist()
            bias = float(self._bias[index])
            yield Contributions(parts, bias, math.fsum((bias, *parts)))

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding."""
        return int(self._embedding.shape[0])

    @property
    def classes(self) -> int:
        """Outputs."""
        return int(self._bias.shape[0])

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return held_bytes(self._embedding) + self._weight.nbytes + self._bias.nbytes

    def _dot_each(self, rows: Array, index: int) -> npt.NDArray[np.float64]:
        """Return the product of each row with the weights of one class; shape [tokens]."""
        # BLAS adds up a row in an order that depends on the kernel and on the row's place among the others. Here each
        # row is multiplied without rounding, for double precision holds a product of two float32, and added up alone.
        if len(rows) > _ROWS_AT_ONCE:
            starts = range(0, len(rows), _ROWS_AT_ONCE)
            return np.concatenate([self._dot_each(rows[start : start + _ROWS_AT_ONCE], index) for start in starts])
        sums: npt.NDArray[np.float64] = np.add.reduce(rows * self._weight[:, index].astype(np.float64), axis=1)
        return sums

    def _means(self, bags: Sequence[Bag]) -> Array:
        lengths = [len(bag) for bag in bags]
        if not bags or 0 in lengths:
            means = np.zeros((len(bags), self._embedding.shape[1]), dtype=np.float32)
            filled = [bag for bag in bags if bag]
            if filled:
                means[np.array(lengths) > 0] = self._means(filled)
            return means
        tokens = np.fromiter(itertools.chain.from_iterable(bags), dtype=np.intp, count=sum(lengths))
        starts = [0, *itertools.accumulate(lengths[:-1])]
        sums: Array = np.add.reduceat(self._embedding.take(tokens, 0), starts, axis=0)
        sums /= np.array(lengths, dtype=np.float32)[:, np.newaxis]
        return sums


def _always_finite(embedding: Array, weight: Array, bias: Array) -> bool:
    """Return whether the largest logit that rows, weights and biases allow is far from what float32 holds."""
    if not embedding.size:
        return False
    row = max(float(embedding.max()), -float(embedding.min()))
    # The sums of a mean may be as large as all of a document's rows together, before they are divided.
    with np.errstate(over="ignore", invalid="ignore"):
        most = row * _MOST_TOKENS * float(np.abs(weight).sum(axis=0, dtype=np.float64).max(initial=0.0))
        return bool(most + float(np.abs(bias).max(initial=0.0)) < _LARGEST and row * _MOST_TOKENS < _LARGEST)
