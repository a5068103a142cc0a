"""The network of an intent model: the mean of its tokens' embeddings, and linear layers with nothing between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Final, Self

import torch
from torch import Tensor, nn

from predictor.files.tensors import Array
from serving.errors import InvalidModelFile

_EMBEDDING: Final = "embedding.weight"
_LINEAR_WEIGHT: Final = re.compile(r"fc[1-9][0-9]*\.weight")


class IntentNetwork(nn.Module):
    """``nn.EmbeddingBag`` (mean) and the layers ``fc1`` to ``fcN``, named as in the book's model files.

    Args:
        embedding: the rows of the vocabulary; float32, shape [tokens, dimensions].
        linears: the layers in order; the inputs of each are the outputs of the one before.
    """

    def __init__(self, embedding: Tensor, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag.from_pretrained(embedding, freeze=False, mode="mean", sparse=True)
        for number, linear in enumerate(linears, start=1):
            self.add_module(f"fc{number}", linear)
        self._linears = tuple(linears)

    @classmethod
    def of_sizes(cls, vocabulary_size: int, widths: Sequence[int]) -> Self:
        """Return an untrained network: embedding dimensions first in ``widths``, then the outputs of each layer."""
        embedding = torch.empty(vocabulary_size, widths[0])
        return cls(embedding, [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)])

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Return the logits of each document.

        Args:
            indices: the token indices of all documents, one after the other; int64, shape [tokens].
            offsets: where each document begins in ``indices``; int64, shape [documents]. A document without tokens
                has an embedding of zeros.

        Returns:
            float32, shape [documents, classes].
        """
        hidden: Tensor = self.embedding(indices, offsets)
        for linear in self._linears:
            hidden = linear(hidden)
        return hidden

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding."""
        return self.embedding.num_embeddings

    @property
    def classes(self) -> int:
        """Outputs of the last layer."""
        return self._linears[-1].out_features

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(parameter.nbytes for parameter in self.parameters())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the network that a state_dict holds, its sizes taken from the shapes.

        Raises:
            InvalidModelFile: the names are not those of this family, or the shapes do not fit each other.
        """
        weights = [torch.from_numpy(arrays[name]) for name in _weight_names(arrays)]
        biases = [torch.from_numpy(arrays[f"fc{number}.bias"]) for number in range(1, len(weights))]
        if any(weight.ndim != 2 or 0 in weight.shape for weight in weights):
            raise InvalidModelFile("model.pth: every weight must be a matrix that is not empty")
        outputs = [weights[0].shape[1], *(weight.shape[0] for weight in weights[1:])]
        inputs = [weight.shape[1] for weight in weights[1:]]
        if inputs != outputs[:-1] or [tuple(bias.shape) for bias in biases] != [(width,) for width in outputs[1:]]:
            raise InvalidModelFile("model.pth: the shapes of its layers do not fit each other")
        network = cls(weights[0], [_linear(w, b) for w, b in zip(weights[1:], biases, strict=True)])
        return network.eval().requires_grad_(requires_grad=False)


def _weight_names(arrays: Mapping[str, Array]) -> list[str]:
    """Return the names of the embedding and of the layers' weights, in order."""
    layers = sum(1 for name in arrays if _LINEAR_WEIGHT.fullmatch(name))
    names = [_EMBEDDING, *(f"fc{number}.weight" for number in range(1, layers + 1))]
    if not layers or arrays.keys() != {*names, *(f"fc{number}.bias" for number in range(1, layers + 1))}:
        raise InvalidModelFile("model.pth must hold embedding.weight, then fc1.weight, fc1.bias, fc2.weight and so on")
    return names


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs)
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear
