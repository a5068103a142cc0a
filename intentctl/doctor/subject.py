"""Subjects of the examination: a model's folder, and the model that was read from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from intentctl.doctor.reach import is_special
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import NO_INDEX, IntentModel
from predictor.model.layers import Layers
from predictor.model.tokenizer import Tokenizer
from predictor.model.vocabulary import Vocabulary
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.pipelines.pipeline import ALGORITHM as PIPELINE

_ROWS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Folder:
    """A model's folder, whether or not a model can be read from it."""

    model_id: ModelId
    sizes: Mapping[str, int]
    """Sizes of the model's existing files, in bytes, by name."""
    document: Mapping[str, Any] | None
    """The manifest as a JSON object, whatever its content; ``None`` if it is not one."""
    manifest: Manifest | None

    @property
    def is_pipeline(self) -> bool:
        """Whether the manifest is that of a pipeline, valid or not."""
        return self.document is not None and self.document.get("Algorithm") == PIPELINE


@dataclass(frozen=True)
class Subject:
    """A model that can be loaded."""

    manifest: Manifest
    vocabulary: Vocabulary
    layers: Layers
    network: FoldedNetwork
    model: IntentModel

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer that the predictor uses."""
        return self.model.tokenizer

    @property
    def default_index(self) -> int | None:
        """Row of unknown tokens; ``None`` if they are left out."""
        default = self.vocabulary.default_index
        return None if default == NO_INDEX else default

    @cached_property
    def tokens(self) -> list[str]:
        """Tokens of the vocabulary that documents should contain: all but the special ones."""
        return [
            token
            for index, token in enumerate(self.vocabulary.tokens)
            if index != self.default_index and not is_special(token)
        ]

    @cached_property
    def outputs(self) -> Outputs:
        """Answers to the documents of one token each, and to the empty document."""
        return Outputs.of(self.network)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of the network for each single row of its embedding, and for no row.

    A document's logits are the mean of those of its tokens, so what holds for every row holds for every document.
    """

    winners: frozenset[int]
    """Classes that win at least once."""
    spread: float
    """Largest difference between two logits of one row."""
    dominated: Mapping[int, int]
    """Classes that lose to another one in every row, mapped to that other class."""

    @classmethod
    def of(cls, network: FoldedNetwork) -> Outputs:
        """Return the outputs of ``network``."""
        winners: set[int] = set()
        spread = 0.0
        for logits in _chunks(network):
            winners.update(np.unique(logits.argmax(axis=1)).tolist())
            spread = max(spread, float((logits.max(axis=1) - logits.min(axis=1)).max()))
        return cls(frozenset(winners), spread, _dominated(network, winners))


def _chunks(network: FoldedNetwork) -> Iterator[npt.NDArray[Any]]:
    yield network.logits([()])
    for start in range(0, network.vocabulary_size, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, network.vocabulary_size)
        yield network.logits([(row,) for row in range(start, stop)])


def _dominated(network: FoldedNetwork, winners: set[int]) -> dict[int, int]:
    losers = [number for number in range(network.classes) if number not in winners]
    if not losers:
        return {}
    # The first class wins among equal logits.
    first = np.arange(network.classes)
    always = np.ones((len(losers), network.classes), dtype=np.bool_)
    for logits in _chunks(network):
        for place, loser in enumerate(losers):
            mine = logits[:, loser : loser + 1]
            always[place] &= ((logits > mine) | ((logits == mine) & (first < loser))).all(axis=0)
    return {loser: int(beaten.argmax()) for loser, beaten in zip(losers, always, strict=True) if beaten.any()}
