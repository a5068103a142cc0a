"""Network of an intent model in PyTorch: the form that is trained, and the reference for the folded form that serves.

It consists of the mean of the tokens' embeddings and of linear layers with nothing between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from predictor.model.files.tensors import Array
from predictor.model.layers import Layers, Linear


class IntentNetwork(nn.Module):
    """``nn.EmbeddingBag`` (mean) and the layers ``fc1`` to ``fcN``, named as in the book's model files.

    Args:
        embedding: the rows of the vocabulary; float32, shape [tokens, dimensions].
        linears: the layers in order; the inputs of each are the outputs of the previous one.
    """

    def __init__(self, embedding: Tensor, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag.from_pretrained(embedding, freeze=False, mode="mean", sparse=True)
        for number, linear in enumerate(linears, start=1):
            self.add_module(f"fc{number}", linear)
        self._linears = tuple(linears)

    @classmethod
    def of_sizes(cls, vocabulary_size: int, widths: Sequence[int]) -> Self:
        """Return an untrained network; ``widths`` are the embedding dimensions, then the outputs of each layer."""
        embedding = torch.empty(vocabulary_size, widths[0])
        return cls(embedding, [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)])

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Return the logits of each document.

        Args:
            indices: the token indices of all documents, concatenated; int64, shape [tokens].
            offsets: the position of each document's beginning in ``indices``; int64, shape [documents]. A document
                without tokens has an embedding of zeros.

        Returns:
            float32, shape [documents, classes].
        """
        hidden: Tensor = self.embedding(indices, offsets)
        for linear in self._linears:
            hidden = linear(hidden)
        return hidden

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the network that a state_dict holds; the shapes of the arrays determine its sizes.

        Raises:
            InvalidModelFile: as in :meth:`Layers.of`.
        """
        layers = Layers.of(arrays)
        network = cls(torch.tensor(layers.embedding), [_linear(linear) for linear in layers.linears])
        return network.eval().requires_grad_(requires_grad=False)


def _linear(layer: Linear) -> nn.Linear:
    outputs, inputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs)
    linear.weight, linear.bias = (
        nn.Parameter(torch.tensor(layer.weight)),
        nn.Parameter(torch.tensor(layer.bias)),
    )
    return linear
