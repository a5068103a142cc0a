"""How a network is trained: every figure that can be chosen, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters. The defaults were chosen by the validation split of CLINC150, never by its test split."""

    dimensions: int = 64
    """Numbers in the embedding of a token."""
    fc_size: int = 128
    """Outputs of the first linear layer."""
    minimum_frequency: int = 1
    """How often a token must stand in the training texts to be in the vocabulary."""
    epochs: int = 50
    """Most passes over the training texts."""
    patience: int = 5
    """Passes without a better validation result after which training stops."""
    learning_rate: float = 0.005
    """Of Adam, the same from the first step to the last: the averaging does what a schedule would."""
    largest_batch: int = 128
    smallest_batch: int = 8
    batches_per_epoch: int = 200
    """Small data sets get smaller batches, down to ``smallest_batch``, so that a pass has about this many steps."""
    token_dropout: float = 0.1
    """Share of the tokens shown as unknown, anew in each pass: so the unknown token learns what to mean."""
    averaging: float = 0.8
    """Share that the averaged weights keep of themselves when a pass adds its own. The average is the model."""

    def batch_size(self, rows: int) -> int:
        """Return how many of ``rows`` training texts go into one step."""
        return min(self.largest_batch, max(self.smallest_batch, rows // self.batches_per_epoch))
