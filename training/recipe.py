"""How a network is trained: every figure that can be chosen, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters. The defaults were chosen by the validation split of CLINC150, never by its test split."""

    tokenizer: str = "basic_english+words:2+characters:3-5"
    """How texts become tokens, as a manifest writes it."""
    max_bytes: int = 8_000_000
    """Most bytes of the model's folder. Where they do not hold all tokens, n-grams that stand in few texts are left
    out, and words after them."""
    dimensions: int = 64
    """Numbers in the embedding of a token."""
    fc_size: int | None = None
    """Outputs of a linear layer before the last one; ``None`` has none, which says as much: nothing is between them."""
    minimum_frequency: int = 1
    """In how many training texts a token must stand to be in the vocabulary."""
    epochs: int = 30
    """Most passes over the training texts."""
    patience: int = 10
    """Passes without a better validation result after which training stops."""
    learning_rate: float = 0.01
    """Of Adam, in the first step; it falls to 0 along half a cosine (Loshchilov and Hutter, "SGDR", 2017)."""
    weight_decay: float = 0.1
    """Share of the learning rate that weights lose in a step ("Decoupled Weight Decay Regularization", 2019)."""
    largest_batch: int = 64
    smallest_batch: int = 8
    batches_per_epoch: int = 200
    """Small data sets get smaller batches, down to ``smallest_batch``, so that a pass has about this many steps."""
    token_dropout: float = 0.4
    """Share of the tokens that are hidden, anew in each pass. Words are shown as unknown, so that the unknown token
    learns what to mean; n-grams are left out."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all labels (Szegedy et al., "Rethinking the Inception Architecture for
    Computer Vision", 2016)."""
    class_weights: bool = False
    """Whether texts of rare labels weigh more, as if all labels had equally many."""
    given_up: float = 0.004
    """Share of the validation texts whose right answer may be given up for the fallback label: sets the threshold."""

    def batch_size(self, rows: int) -> int:
        """Return how many of ``rows`` training texts go into one step."""
        return min(self.largest_batch, max(self.smallest_batch, rows // self.batches_per_epoch))

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of so many."""
        return self.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
