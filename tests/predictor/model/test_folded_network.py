from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.model.files.tensors import Array, read_state_dict
from predictor.model.folded_network import Bag, FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.network import IntentNetwork
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import InvalidModelFile
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from tests.conftest import ROOT, shared
from tests.predictor.builders import state_dict

WIDTHS = [(4, 3), (64, 128, 151), (8, 7, 6, 5), (4, 9, 3, 8, 2), (2, 3, 4, 5, 6, 7)]
MODELS = ["clinc150", "clinc150-banking", "clinc150-travel", "clinc150-kitchen", "banking77"]


def arrays(vocabulary_size: int, *widths: int) -> dict[str, Array]:
    return {name: value.numpy() for name, value in state_dict(vocabulary_size, *widths).items()}


def unfolded(network: IntentNetwork, bags: Sequence[Bag]) -> Array:
    starts = [0, *itertools.accumulate(len(bag) for bag in bags)][:-1]
    indices = torch.tensor([index for bag in bags for index in bag], dtype=torch.int64)
    with torch.inference_mode():
        logits: Array = network(indices, torch.tensor(starts, dtype=torch.int64)).numpy()
    return logits


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_the_sizes_are_those_of_the_file(widths: tuple[int, ...]) -> None:
    network = FoldedNetwork.from_arrays(arrays(11, *widths))
    assert (network.vocabulary_size, network.classes) == (11, widths[-1])
    assert network.size >= 4 * (11 * widths[0] + (widths[0] + 1) * widths[-1])


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6), st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1)
)
@settings(max_examples=100)
def test_folding_changes_no_logit_of_any_network(widths: list[int], bags: list[list[int]]) -> None:
    state = arrays(5, *widths)
    folded, plain = FoldedNetwork.from_arrays(state), IntentNetwork.from_arrays(state)
    np.testing.assert_allclose(folded.logits(bags), unfolded(plain, bags), rtol=1e-4, atol=1e-4)


@given(st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1))
def test_a_document_has_the_same_logits_alone_and_among_others(bags: list[list[int]]) -> None:
    network = FoldedNetwork.from_arrays(arrays(5, 8, 6, 4))
    together = network.logits(bags)
    for bag, row in zip(bags, together, strict=True):
        np.testing.assert_allclose(network.logits([bag])[0], row, rtol=1e-5, atol=1e-6)


def test_no_documents_have_no_logits() -> None:
    assert FoldedNetwork.from_arrays(arrays(5, 4, 3)).logits([]).shape == (0, 3)


def test_arrays_that_are_no_network_are_refused() -> None:
    state = arrays(5, 4, 3)
    state["fc1.bias"] = state["fc1.bias"][:-1]
    with pytest.raises(InvalidModelFile, match="do not match"):
        FoldedNetwork.from_arrays(state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed", *MODELS])
def test_labels_and_logits_of_all_clinc150_test_rows_are_those_of_the_unfolded_network(name: str) -> None:
    folder: Path = shared("seed-model/1") if name == "seed" else ROOT / "models" / name
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    texts = [text for text, _ in data["test"] + data["oos_test"]]
    state = read_state_dict((folder / "model.pth").read_bytes())
    folded, plain = FoldedNetwork.from_arrays(state), IntentNetwork.from_arrays(state)
    vocabulary = read_vocabulary((folder / "vocab.pth").read_bytes())
    model = IntentModel(ModelId("m"), Manifest.parse((folder / "manifest.json").read_bytes()), vocabulary, folded)
    bags = [model.encode(text).bag for text in texts]

    expected, found = unfolded(plain, bags), folded.logits(bags)

    assert len(texts) == 5500
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("embedding", "weight", "bias", "certain"),
    [(1.0, 1.0, 1.0, True), (3e38, 1.0, 0.0, False), (1e20, 1e20, 0.0, False), (1.0, 1.0, 3e38, False)],
)
def test_a_network_knows_whether_its_logits_are_finite_whatever_it_is_asked(
    embedding: float, weight: float, bias: float, *, certain: bool
) -> None:
    network = FoldedNetwork(
        np.full((3, 2), embedding, np.float32), np.full((2, 4), weight, np.float32), np.full(4, bias, np.float32)
    )
    assert network.always_finite is certain
    for bag in ([], [0], [0, 1, 2] * 1000):
        assert not certain or np.isfinite(network.logits([bag])).all()
