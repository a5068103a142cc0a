"""Network of an intent model in the form that serves: nothing separates the linear layers, so one matrix replaces them.

``logits = mean(E[tokens]) @ W + c`` equals the network of ``predictor.model.network`` up to rounding. For one document
this takes a handful of NumPy calls; evaluating the layers one by one costs ten times as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from predictor.model.files.tensors import Array, held_bytes
from predictor.model.layers import Layers, LayerShapes

Bag: TypeAlias = Sequence[int]
"""Indices of a document's tokens."""

# A one for each token of all but the longest documents: with this vector BLAS adds rows up, in a third of the time.
_ONES: Final = np.ones(1 << 12, dtype=np.float32)

# _MOST_TOKENS is far above the tokens of the largest document that any service accepts; _LARGEST is far below the
# largest float32.
_MOST_TOKENS: Final = 1 << 30
_LARGEST: Final = 1e36

# Bounds the double-precision products that an explanation of a long document holds at a time.
_ROWS_AT_ONCE: Final = 1 << 10


class Contributions(NamedTuple):
    """Parts of a logit."""

    parts: list[float]
    """Contribution of each token."""
    bias: float
    logit: float
    """Sum of all parts and the bias, rounded once, so that the order of tokens does not change it."""


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
        """Whether the logits of every possible document are finite, as they are in every trained network."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the network that a state_dict holds.

        Raises:
            InvalidModelFile: as in :meth:`~predictor.model.layers.Layers.of`.
        """
        layers = Layers.of(arrays)
        first, *others = layers.linears
        # Fold in double precision, so that folding adds no error. Weights that overflow give logits that are not
        # finite, as they do unfolded, and those logits are handled when a query is answered.
        with np.errstate(over="ignore", invalid="ignore"):
            weight = first.weight.T.astype(np.float64)
            bias = first.bias.astype(np.float64)
            for layer in others:
                turned = layer.weight.T.astype(np.float64)
                weight, bias = weight @ turned, bias @ turned + layer.bias
            return cls(layers.embedding, weight.astype(np.float32), bias.astype(np.float32))

    @staticmethod
    def folding_memory(shapes: LayerShapes) -> int:
        """Return an upper bound on the bytes that :meth:`from_arrays` allocates for a network of these shapes.

        A small network can fold into a large one: layers of 10,000, 1 and 10,000 take 80 kB, their product 400 MB.
        """
        dimensions, *outputs = shapes.widths
        folded = max(dimensions * width for width in outputs)
        layer = max(before * after for before, after in itertools.pairwise(shapes.widths))
        # Two products and one layer in double precision; the result and its magnitudes in single precision.
        return 8 * (2 * folded + layer) + 2 * 4 * folded

    def logits(self, bags: Sequence[Bag]) -> Array:
        """Return the logits of each document: float32, shape [documents, classes].

        Args:
            bags: the token indices of each document. A document without tokens has an embedding of zeros.
        """
        if len(bags) == 1 and self.always_finite:
            return self.logits_of_rows(self.rows(bags[0]))[np.newaxis]
        with np.errstate(over="ignore", invalid="ignore"):
            result: Array = self._means(bags) @ self._weight + self._bias
        return result

    def rows(self, bag: Bag) -> Array:
        """Return the embedding rows of a document's tokens: float32, shape [tokens, dimensions]."""
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
        """Write the logits of :meth:`logits_of_rows` to an array of the same shape."""
        # Make as few calls as possible: for one document, the calls dominate the cost.
        tokens = len(rows)
        if not tokens:
            to[:] = self._bias
            return
        mean: Array = _ONES[:tokens].dot(rows) if tokens <= len(_ONES) else np.add.reduce(rows, 0)
        mean /= np.float32(tokens)
        mean.dot(self._weight, to)
        to += self._bias

    def contributions(self, rows: Array, classes: Iterable[int]) -> Iterator[Contributions]:
        """Yield for each class the contribution of each token of a document to its logit, and the bias of the class.

        A token's part of the mean is its embedding row divided by the number of tokens, and its part of a logit is that
        vector times the weights of the class. All parts and the bias add up to the logit, and are finite if the logit
        is.

        A part depends only on the token, the class and the number of tokens: equal tokens add equal parts, to the last
        bit, on every processor.
        """
        tokens = len(rows) or 1
        for index in classes:
            parts: list[float] = (self._dot_each(rows, index) / tokens).tolist()
            bias = float(self._bias[index])
            yield Contributions(parts, bias, math.fsum((bias, *parts)))

    @property
    def vocabulary_size(self) -> int:
        """Number of rows of the embedding."""
        return int(self._embedding.shape[0])

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return int(self._bias.shape[0])

    @property
    def size(self) -> int:
        """Bytes of memory that the weights take."""
        return held_bytes(self._embedding) + self._weight.nbytes + self._bias.nbytes

    def _dot_each(self, rows: Array, index: int) -> npt.NDArray[np.float64]:
        """Return the product of each row with the weights of one class; shape [tokens]."""
        # BLAS sums a row in an order that depends on the kernel and on the row's position among the others. Here each
        # row is multiplied without rounding, because double precision holds a product of two float32, and summed alone.
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
    """Return whether the largest logit that rows, weights and biases allow is far below the largest float32."""
    if not embedding.size:
        return False
    row = max(float(embedding.max()), -float(embedding.min()))
    # Before the division, the sums of a mean may be as large as all of a document's rows together.
    with np.errstate(over="ignore", invalid="ignore"):
        most = row * _MOST_TOKENS * float(np.abs(weight).sum(axis=0, dtype=np.float64).max(initial=0.0))
        return bool(most + float(np.abs(bias).max(initial=0.0)) < _LARGEST and row * _MOST_TOKENS < _LARGEST)
