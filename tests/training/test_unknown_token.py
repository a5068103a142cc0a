from __future__ import annotations

import pytest
import torch

from predictor.model.network import IntentNetwork
from training.unknown_token import neutralize


def logits_of(network: IntentNetwork, *tokens: int) -> torch.Tensor:
    logits: torch.Tensor = network(torch.tensor(tokens), torch.tensor([0])).detach()[0]
    return logits


@pytest.mark.parametrize("widths", [[8, 3], [8, 5, 4], [64, 60]])
def test_a_document_of_the_token_alone_says_nothing(widths: list[int]) -> None:
    torch.manual_seed(0)
    network = IntentNetwork.of_sizes(5, widths)
    torch.nn.init.normal_(network.embedding.weight)
    before = logits_of(network, 1, 2)
    neutralize(network, 3)
    found = logits_of(network, 3, 3)
    assert found.tolist() == pytest.approx([float(found.mean())] * widths[-1], abs=1e-5)
    assert torch.equal(logits_of(network, 1, 2), before)


def test_with_more_classes_than_dimensions_it_says_as_little_as_can_be() -> None:
    torch.manual_seed(0)
    network = IntentNetwork.of_sizes(2, [4, 30])
    neutralize(network, 1)
    spread = logits_of(network, 1).std()
    for _ in range(100):
        with torch.no_grad():
            network.embedding.weight[0] = network.embedding.weight[1] + 0.1 * torch.randn(4)
        assert logits_of(network, 0).std() >= spread - 1e-6
