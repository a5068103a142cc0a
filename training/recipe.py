"""Recipe for training a network: every figure that can be chosen, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.domain.confidence import FALLBACK_LABEL


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters. The defaults were chosen on the validation split of CLINC150, never on its test split."""

    tokenizer: str = "basic_english+normalized+words:2+characters:3-5"
    """Tokenizer, as a manifest writes it."""
    max_bytes: int = 8_000_000
    """Maximum bytes of the model's folder. If they do not hold all tokens, n-grams that occur in few texts are left
    out, and then words."""
    dimensions: int = 64
    """Number of dimensions of the embedding of a token."""
    fc_size: int | None = None
    """Outputs of a linear layer before the last one; ``None``: no such layer, which is as expressive, because the
    layers are linear and nothing separates them."""
    minimum_frequency: int = 1
    """Minimum number of occurrences of a word, or of texts with an n-gram, for a place in the vocabulary."""
    epochs: int = 30
    """Maximum number of passes over the training texts."""
    patience: int = 10
    """Number of passes without a better validation result after which training stops."""
    learning_rate: float = 0.01
    """Adam's learning rate in the first step; it falls to 0 along half a cosine (Loshchilov and Hutter, "SGDR",
    2017)."""
    weight_decay: float = 0.1
    """Decay of the weights in a step, as a share of the learning rate ("Decoupled Weight Decay Regularization",
    2019)."""
    largest_batch: int = 64
    smallest_batch: int = 8
    batches_per_epoch: int = 200
    """Approximate number of steps in a pass over a small data set, which gets smaller batches, down to
    ``smallest_batch``."""
    token_dropout: float = 0.4
    """Share of the tokens that are hidden, chosen anew in each pass. Words are shown as unknown, so that the unknown
    token learns a meaning; n-grams are left out."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all labels (Szegedy et al., "Rethinking the Inception Architecture for
    Computer Vision", 2016)."""
    class_weights: bool = False
    """Whether texts of rare labels weigh more, as if all labels had equally many texts."""
    given_up: float = 0.004
    """Share of the validation texts whose right answers the fallback label may replace; determines the threshold."""
    given_up_of_few: float = 0.03
    """The same share for cross-validation: with few texts, right and wrong answers differ less in their scores."""
    threshold: float | None = None
    """Minimum score of an answer; ``None``: chosen by ``given_up``, but well above chance."""
    fallback_label: str = FALLBACK_LABEL
    """Label of answers below the threshold, and of the rows that are out of scope."""

    def batch_size(self, rows: int) -> int:
        """Return the number of texts in one step when there are ``rows`` training texts."""
        return min(self.largest_batch, max(self.smallest_batch, rows // self.batches_per_epoch))

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of ``step``, counted from 0, out of ``steps``."""
        return self.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
