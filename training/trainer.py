"""Training loop: fits the weights of a network to encoded texts. Uses only training and validation texts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from predictor.model.network import IntentNetwork
from training.recipe import Recipe

_UNKNOWN: Final = 0
_EMBEDDING_DEVIATION: Final = 0.1
_BATCH_SIZE: Final = 4096
"""Number of texts in a batch of an evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """Encoded texts and their classes."""

    documents: tuple[Tensor, ...]
    """Token indices of each text: int64, shape [tokens]."""
    classes: Tensor
    """Class of each text: int64, shape [documents]."""

    def __len__(self) -> int:
        return len(self.documents)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the token indices, offsets and classes of ``rows``, in the form that network and loss take."""
        documents = [self.documents[row] for row in rows]
        lengths = torch.tensor([0, *(len(document) for document in documents[:-1])])
        return torch.cat(documents), lengths.cumsum(dim=0), self.classes[torch.tensor(rows)]


@dataclass(frozen=True, slots=True)
class Score:
    """Score of a network on a set of texts."""

    accuracy: float
    """Share of the texts that are classified correctly, from 0 to 1."""
    loss: float
    """Mean cross-entropy, in nats."""

    def beats(self, other: Score) -> bool:
        """Return whether this score is better, by loss: on few texts the loss is more informative than the accuracy."""
        return self.loss < other.loss


@dataclass(frozen=True, slots=True)
class Epoch:
    """Result of one pass over the training texts."""

    number: int
    """Number of the pass, counted from 1."""
    loss: float
    """Mean cross-entropy of the training texts while the weights moved, in nats."""
    validation: Score | None
    """Score on the validation texts; ``None`` if there are none."""
    fold: int = 0
    """Number of the fold in cross-validation, counted from 1; beyond ``folds``: the network is trained on all texts."""
    folds: int = 0
    """Number of folds; 0: there is no cross-validation."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Outcome of training."""

    network: IntentNetwork
    """Network with the weights after the best epoch; after the last one if there are no validation texts."""
    best: Epoch
    epochs: int
    """Number of epochs that were run."""


OnEpoch = Callable[[Epoch], None]


def fit(
    network: IntentNetwork,
    training: Bags,
    validation: Bags | None,
    recipe: Recipe,
    *,
    first_ngram: int,
    seed: int,
    on_epoch: OnEpoch,
) -> Trained:
    """Train ``network`` until its score on the validation texts stops improving; without any, for all epochs.

    Args:
        network: network of the right sizes; its weights are reinitialized.
        training: at least one text.
        validation: at least one text; ``None``: every epoch is run, and the last one counts as the best.
        recipe: hyper-parameters of the training.
        first_ngram: the index at which n-grams begin.
        seed: determines the first weights, the order of the texts and the hidden tokens. The same seed gives the same
            weights with the same torch on the same kind of processor.
        on_epoch: called with each epoch when it ends.
    """
    with _reproducible():
        training_pass = _TrainingPass(network, training, recipe, first_ngram, torch.Generator().manual_seed(seed))
        best: Epoch | None = None
        best_network = network
        number = 0
        while number < recipe.epochs and (best is None or number - best.number < recipe.patience):
            number += 1
            epoch = Epoch(number, training_pass.run(), None if validation is None else evaluate(network, validation))
            on_epoch(epoch)
            if epoch.validation is None or best is None or best.validation is None:
                is_better = True
            else:
                is_better = epoch.validation.beats(best.validation)
            if is_better:
                best, best_network = epoch, network if epoch.validation is None else copy.deepcopy(network)
    if best is None:
        raise ValueError("a recipe needs at least one epoch")
    return Trained(best_network, best, number)


def evaluate(network: IntentNetwork, bags: Bags, batch_size: int = _BATCH_SIZE) -> Score:
    """Return the score of ``network`` on ``bags``, which hold at least one text, in batches of ``batch_size`` texts."""
    right = loss = 0.0
    with _reproducible(), torch.inference_mode():
        for start in range(0, len(bags), batch_size):
            indices, offsets, classes = bags.batch(range(start, min(start + batch_size, len(bags))))
            logits = network(indices, offsets)
            right += (logits.argmax(dim=1) == classes).sum().item()
            loss += nn.functional.cross_entropy(logits, classes, reduction="sum").item()
    return Score(right / len(bags), loss / len(bags))


class _TrainingPass:
    """Passes over the training texts, each of which shows a network every text once, as the recipe specifies."""

    def __init__(
        self, network: IntentNetwork, training: Bags, recipe: Recipe, first_ngram: int, generator: torch.Generator
    ) -> None:
        _initialise(network, generator)
        # Adam visits every row of the embedding in every step, so the gradient is dense during training.
        network.embedding.sparse = False
        self._network = network
        self._training = training
        self._recipe = recipe
        self._first_ngram = first_ngram
        self._generator = generator
        self._size = recipe.batch_size(len(training))
        self._step = 0
        self._steps = recipe.epochs * math.ceil(len(training) / self._size)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self._weights = _class_weights(training.classes) if recipe.class_weights else None

    def run(self) -> float:
        """Show every text once, in a new random order, and return the mean loss."""
        order = torch.randperm(len(self._training), generator=self._generator).tolist()
        total = 0.0
        for start in range(0, len(order), self._size):
            rows = order[start : start + self._size]
            total += self._learn(*self._training.batch(rows)) * len(rows)
        return total / len(order)

    def _learn(self, indices: Tensor, offsets: Tensor, classes: Tensor) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate_at(self._step, self._steps)
        self._step += 1
        loss = nn.functional.cross_entropy(
            self._network(*self._hiding(indices, offsets)),
            classes,
            weight=self._weights,
            label_smoothing=self._recipe.label_smoothing,
        )
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        return loss.item()

    def _hiding(self, indices: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens and offsets of a batch with some n-grams left out and some words replaced by unknown."""
        hidden = torch.rand(len(indices), generator=self._generator) < self._recipe.token_dropout
        stays = ~hidden | (indices < self._first_ngram)
        before = nn.functional.pad(stays.cumsum(dim=0), (1, 0))
        return indices.masked_fill(hidden, _UNKNOWN)[stays], before[offsets]


def _class_weights(classes: Tensor) -> Tensor:
    """Return a weight for each class that gives all classes the same total weight."""
    counts = classes.bincount()
    return len(classes) / (len(counts) * counts)


def _initialise(network: IntentNetwork, generator: torch.Generator) -> None:
    """Set the first weights, all of them from ``generator``."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("embedding"):
                parameter.normal_(std=_EMBEDDING_DEVIATION, generator=generator)
            elif parameter.ndim == 2:
                parameter.normal_(std=1 / math.sqrt(parameter.shape[1]), generator=generator)
            else:
                parameter.zero_()


@contextmanager
def _reproducible() -> Iterator[None]:
    """Use one thread, whose sums have a fixed order, and no algorithm whose result can vary."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
