from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predictor.model.files.tensors import read_state_dict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.layer_names import family_names
from serving.domain.errors import InvalidModelFile
from tests.predictor.builders import network, saved, state_dict
from tests.serving.refusals import refused

BAGS = [[0, 3, 3], [], [6]]


def renamed(change: Callable[[str], str], *widths: int) -> bytes:
    return saved(OrderedDict((change(name), value) for name, value in state_dict(7, *widths).items()))


def replaced(**names: str) -> Callable[[str], str]:
    def change(name: str) -> str:
        layer, _, part = name.rpartition(".")
        return f"{names.get(layer, layer)}.{part}"

    return change


READ: dict[str, tuple[Callable[[str], str], tuple[int, ...]]] = {
    "DataParallel": (lambda name: f"module.{name}", (4, 5, 3)),
    "compiled": (lambda name: f"_orig_mod.{name}", (4, 5, 3)),
    "compiled, then DataParallel": (lambda name: f"module._orig_mod.{name}", (4, 5, 3)),
    "one layer compiled": (lambda name: name.replace("fc1.", "fc1._orig_mod."), (4, 5, 3)),
    "inside of another module": (lambda name: f"model.net.{name}", (4, 5, 3)),
    "inside of another module, wrapped": (lambda name: f"module.model.{name}", (4, 5, 3)),
    "torchtext's tutorial": (replaced(fc1="fc"), (4, 3)),
    "a single layer of any name": (replaced(fc1="classifier.out", embedding="emb"), (4, 3)),
    "a single layer, wrapped": (lambda name: "module." + replaced(fc1="linear")(name), (4, 3)),
}


@pytest.mark.parametrize("kind", READ)
def test_weights_of_other_trainers_give_the_same_answers(kind: str) -> None:
    change, widths = READ[kind]
    served = FoldedNetwork.from_arrays(read_state_dict(renamed(change, *widths)))
    assert np.array_equal(served.logits(BAGS), network(7, *widths).logits(BAGS))


@pytest.mark.parametrize(
    ("change", "widths", "named"),
    [
        # There may be a function between two layers, which the file does not record.
        (replaced(fc1="linear1", fc2="linear2"), (4, 5, 3), "linear1.weight"),
        (replaced(fc1="0", fc2="2"), (4, 5, 3), "0.weight"),
        (replaced(fc2="out"), (4, 5, 3), "out.weight"),
    ],
)
def test_several_layers_of_other_names_are_refused_and_named(
    change: Callable[[str], str], widths: tuple[int, ...], named: str
) -> None:
    with refused(InvalidModelFile, match="if nothing stands between them") as caught:
        FoldedNetwork.from_arrays(read_state_dict(renamed(change, *widths)))
    assert named in str(caught.value)


REFUSED: dict[str, dict[str, tuple[int, ...]]] = {
    "nothing": {},
    "an embedding alone": {"embedding.weight": (7, 4)},
    "two embeddings": {"a.weight": (7, 4), "b.weight": (7, 4), "fc1.weight": (3, 4), "fc1.bias": (3,)},
    "no bias": {"embedding.weight": (7, 4), "fc.weight": (3, 4)},
    "a single layer that does not fit": {"a.weight": (7, 5), "fc.weight": (3, 4), "fc.bias": (3,)},
    "a single layer with another bias": {"a.weight": (7, 4), "fc.weight": (3, 4), "fc.bias": (4,)},
    "names that are one name without wrappers": {
        "module.embedding.weight": (7, 4),
        "embedding.weight": (7, 4),
        "fc1.weight": (3, 4),
        "fc1.bias": (3,),
    },
    "a batch norm": {
        "embedding.weight": (7, 4),
        "fc1.weight": (3, 4),
        "fc1.bias": (3,),
        "norm.weight": (4,),
        "norm.bias": (4,),
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_read_in_two_ways_or_in_none_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"must hold embedding\.weight"):
        family_names(REFUSED[kind])


def test_names_in_a_message_are_few_short_and_printable() -> None:
    with pytest.raises(ValueError, match="more") as caught:
        family_names({f"\x1b[31m{'x' * 500}{number}": (1,) for number in range(100)})
    message = str(caught.value)
    assert message.isprintable()
    assert "?[31mxxx" in message
    assert len(message) < 600
    assert "and 95 more" in message


@given(st.dictionaries(st.text(".mf_1weightbias", max_size=20), st.just((2, 2)), max_size=5))
def test_every_tensor_of_any_file_is_used_once_or_the_file_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    try:
        names = family_names(shapes)
    except ValueError:
        return
    assert sorted(names.values()) == sorted(shapes)


def test_a_checkpoint_is_named() -> None:
    state = state_dict(7, 4, 3)
    with refused(InvalidModelFile, match="checkpoint"):
        read_state_dict(saved({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}}))
    with refused(InvalidModelFile, match="something other"):
        read_state_dict(saved({"w": torch.ones(2), "epoch": 3}))
