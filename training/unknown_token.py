"""Makes the unknown token uninformative about the label of a text."""

from __future__ import annotations

import numpy as np
import torch

from predictor.model.layers import Layers
from predictor.model.network import IntentNetwork


def neutralize(network: IntentNetwork, token: int) -> None:
    """Set the embedding of ``token`` so that a document of that token alone has equal logits.

    With more classes than dimensions, the logits are as equal as the layers allow.
    """
    layers = Layers.of({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    weight, bias = np.eye(layers.embedding.shape[1]), np.zeros(layers.embedding.shape[1])
    for linear in layers.linears:
        weight, bias = linear.weight @ weight, linear.weight @ bias + linear.bias
    # Equal logits do not differ from their mean. The pseudoinverse gives the shortest solution.
    embedding = np.linalg.pinv(weight - weight.mean(axis=0)) @ (bias.mean() - bias)
    with torch.no_grad():
        network.embedding.weight[token] = torch.from_numpy(embedding)
