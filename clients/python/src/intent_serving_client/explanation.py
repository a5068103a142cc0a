"""Explanation of a label's logit by the contribution of each token: exact, as the network is linear in its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple


class LabelExplanation(NamedTuple):
    """The parts of one label's logit."""

    label: str
    logit: float
    """Output of the network: the sum of the bias and all contributions."""
    bias: float
    """Logit of a document without tokens."""
    contributions: tuple[float, ...]
    """Contribution of each token; 0 for tokens that are left out."""


class Explanation(NamedTuple):
    """The parts of the logits of some labels."""

    tokens: tuple[str, ...]
    """Tokens of the document, as returned by the model's tokenizer: words, then n-grams."""
    unknown: tuple[int, ...]
    """Indices, from 0, of the tokens that are not in the vocabulary."""
    labels: tuple[LabelExplanation, ...]
    """Explained labels: the best one first, then the requested ones."""
    temperature: float
    """Divisor of the logits before they become probabilities."""
    model_id: str = ""
    """Model whose logits these are, if several models of a pipeline's step voted; empty: the model that answered."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        fields = self._asdict() | {"labels": [label._asdict() for label in self.labels]}
        if not self.model_id:
            del fields["model_id"]
        return fields
