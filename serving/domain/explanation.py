"""Why a label has its logit: what each token adds to it, exactly, for the network is linear in its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple


class LabelExplanation(NamedTuple):
    """The parts of one label's logit."""

    label: str
    logit: float
    """The network's output: the bias and all contributions together."""
    bias: float
    """What it is for a document without tokens."""
    contributions: tuple[float, ...]
    """What each token adds; tokens that are left out add 0."""


class Explanation(NamedTuple):
    """The parts of the logits of some labels."""

    tokens: tuple[str, ...]
    """Of the document, as the model's tokenizer gives them: words, then n-grams."""
    unknown: tuple[int, ...]
    """Which of them, counted from 0, the vocabulary does not have."""
    labels: tuple[LabelExplanation, ...]
    """The best label first, then those asked for."""
    temperature: float
    """Logits are divided by it before they become probabilities."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
        return self._asdict() | {"labels": [label._asdict() for label in self.labels]}
