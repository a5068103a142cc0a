from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from predictor.model.files.tensors import Array, read_state_dict
from predictor.model.network import IntentNetwork
from serving.domain.errors import InvalidModelFile
from tests.predictor.builders import saved, state_dict
from tests.serving.refusals import refused

WIDTHS = [(3, 2), (8, 5, 4), (8, 7, 6, 5), (4, 9, 3, 8, 2), (2, 3, 4, 5, 6, 7), (1, 1)]


def arrays(*sizes: int) -> dict[str, Array]:
    return {name: value.numpy() for name, value in state_dict(*sizes).items()}


def plain_logits(state: dict[str, Tensor], bags: list[list[int]]) -> Tensor:
    """Return the logits as the book's network defines them, computed one document at a time."""
    rows = []
    for bag in bags:
        embeddings = state["embedding.weight"]
        hidden = embeddings[bag].mean(dim=0) if bag else torch.zeros(embeddings.shape[1])
        for number in range(1, len(state) // 2 + 1):
            hidden = state[f"fc{number}.weight"] @ hidden + state[f"fc{number}.bias"]
        rows.append(hidden)
    return torch.stack(rows)


def logits(network: IntentNetwork, bags: list[list[int]]) -> Tensor:
    starts = [sum(len(bag) for bag in bags[:index]) for index in range(len(bags))]
    result: Tensor = network(
        torch.tensor([index for bag in bags for index in bag], dtype=torch.int64),
        torch.tensor(starts, dtype=torch.int64),
    )
    return result


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_the_logits_are_those_of_the_definition(widths: tuple[int, ...]) -> None:
    network = IntentNetwork.from_arrays(arrays(11, *widths))
    bags = [[0], [], [10, 10, 3], list(range(11)), [], [5] * 500]
    torch.testing.assert_close(logits(network, bags), plain_logits(state_dict(11, *widths), bags), rtol=1e-4, atol=1e-4)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6), st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1)
)
@settings(max_examples=50)
def test_any_network_gives_the_logits_of_the_definition(widths: list[int], bags: list[list[int]]) -> None:
    network = IntentNetwork.from_arrays(arrays(5, *widths))
    expected = plain_logits(state_dict(5, *widths), bags)
    torch.testing.assert_close(logits(network, bags), expected, rtol=1e-4, atol=1e-4)


def test_a_network_that_was_read_is_not_trained() -> None:
    network = IntentNetwork.from_arrays(arrays(5, 4, 3))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_that_is_trained_and_saved_is_read_again() -> None:
    network = IntentNetwork.of_sizes(6, (4, 3, 2))
    torch.nn.init.normal_(network.embedding.weight)
    assert all(parameter.requires_grad for parameter in network.parameters())
    again = IntentNetwork.from_arrays(read_state_dict(saved(network.state_dict())))
    assert torch.equal(logits(again, [[1, 2]]), logits(network, [[1, 2]]))
    assert network.state_dict().keys() == state_dict(6, 4, 3, 2).keys()


def matrix(*shape: int) -> Array:
    return np.zeros(shape, dtype=np.float32)


def without(name: str) -> Callable[[dict[str, Array]], object]:
    return lambda state: state.pop(name)


def with_array(name: str, *shape: int) -> Callable[[dict[str, Array]], object]:
    return lambda state: state.update({name: matrix(*shape)})


# Changes to the arrays of 11 tokens and the widths 8, 7, 6.
WRONG: dict[str, Callable[[dict[str, Array]], object]] = {
    "nothing": lambda state: state.clear(),
    "no-embedding": without("embedding.weight"),
    "no-first-bias": without("fc1.bias"),
    "no-last-bias": without("fc2.bias"),
    "no-first-weight": without("fc1.weight"),
    "bias-without-weight": without("fc2.weight"),
    "gap": lambda state: state.update({"fc4.weight": matrix(5, 6), "fc4.bias": matrix(5)}),
    "zero": lambda state: state.update({"fc0.weight": matrix(8, 8), "fc0.bias": matrix(8)}),
    "leading-zero": lambda state: state.update({"fc03.weight": matrix(5, 6), "fc03.bias": matrix(5)}),
    "arabic-digit": lambda state: state.update({"fc٣.weight": matrix(5, 6), "fc٣.bias": matrix(5)}),
    "extra": with_array("dropout.weight", 1),
    "extra-bias": with_array("embedding.bias", 8),
    "prefixed-each-otherwise": lambda state: state.update(
        {f"{n}.{name}": state.pop(name) for n, name in enumerate(list(state))}
    ),
    "embedding-too-wide": with_array("embedding.weight", 11, 9),
    "embedding-flat": with_array("embedding.weight", 11),
    "embedding-cube": with_array("embedding.weight", 11, 8, 1),
    "embedding-number": with_array("embedding.weight"),
    "embedding-empty": with_array("embedding.weight", 0, 8),
    "embedding-without-width": with_array("embedding.weight", 11, 0),
    "layers-do-not-chain": with_array("fc2.weight", 6, 8),
    "layer-turned": with_array("fc1.weight", 8, 7),
    "layer-flat": with_array("fc1.weight", 7),
    "layer-cube": with_array("fc1.weight", 7, 8, 1),
    "layer-without-outputs": lambda state: state.update({"fc2.weight": matrix(0, 7), "fc2.bias": matrix(0)}),
    "bias-short": with_array("fc1.bias", 6),
    "bias-matrix": with_array("fc1.bias", 7, 1),
    "bias-number": with_array("fc2.bias"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_arrays_that_are_no_such_network_are_refused(change: Callable[[dict[str, Array]], object]) -> None:
    state = arrays(11, 8, 7, 6)
    IntentNetwork.from_arrays(state)
    change(state)
    with refused(InvalidModelFile, match=r"^model\.pth"):
        IntentNetwork.from_arrays(state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_weights_of_single_numbers_are_refused_in_every_type(dtype: torch.dtype) -> None:
    state = state_dict(11, 8, 7) | {"embedding.weight": torch.tensor(1.0, dtype=dtype)}
    with refused(InvalidModelFile):
        IntentNetwork.from_arrays(read_state_dict(saved(state)))
