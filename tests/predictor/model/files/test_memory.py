from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictor.model.files.allowance import Allowance, NeedsMoreMemory, TooManyItems
from predictor.model.loader import WORKSPACE
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import InvalidModelFile
from tests.fakes.torchtext import fake_torchtext, legacy_vocab, modern_vocab
from tests.predictor.builders import saved, state_dict
from tests.predictor.model.files.oversized import (
    ROWS,
    VOCABULARY_FILES,
    WEIGHT_FILES,
    legacy_vocabulary,
    read_tokens,
    read_weights,
    tokens,
)
from tests.serving.refusals import refused


@dataclass
class Peak:
    """Most memory that a block took."""

    size: int = 0
    """Bytes."""


@contextmanager
def peak() -> Iterator[Peak]:
    """Yield the peak of the block's memory, known at its end."""
    found = Peak()
    tracemalloc.start()
    try:
        yield found
    finally:
        found.size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_weights_that_ask_for_much_are_refused_within_a_workspace(name: str) -> None:
    data = WEIGHT_FILES[name]()
    with peak() as found, refused(InvalidModelFile):
        read_weights(data)
    assert found.size < WORKSPACE


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", VOCABULARY_FILES)
def test_a_vocabulary_that_is_far_larger_than_its_network_is_refused_before_it_is_read(name: str) -> None:
    data = VOCABULARY_FILES[name]()
    with peak() as found, refused(InvalidModelFile):
        read_tokens(data)
    assert found.size < WORKSPACE // 2


@pytest.fixture(autouse=True)
def torchtext() -> Iterator[None]:
    """Fakes of torchtext's classes can be pickled."""
    with fake_torchtext():
        yield


def test_a_vocabulary_of_as_many_tokens_as_rows_is_read_and_one_of_more_is_not() -> None:
    names = list(tokens(3000))
    indices = {name: number for number, name in enumerate(names)}
    for data, most in ((saved(names), 2999), (saved(modern_vocab(names, 0)), 2999), (saved(indices), 2900)):
        assert len(read_vocabulary(data, Allowance(WORKSPACE, most_items=3000))) == 3000
        with refused(TooManyItems):
            read_vocabulary(data, Allowance(WORKSPACE, most_items=most))


def test_an_old_vocabulary_may_have_counted_more_tokens_than_it_holds() -> None:
    data = legacy_vocabulary(itos=["<unk>", "a"], stoi=["a", *tokens(500)], freqs=tokens(5000))
    vocabulary = read_vocabulary(data, Allowance(WORKSPACE, most_items=2))
    assert vocabulary.tokens == ("<unk>", "a")
    assert read_vocabulary(saved(legacy_vocab(["<unk>", "a"]))).tokens[0] == "<unk>"


def test_what_is_left_for_a_file_is_shared_by_its_pickles() -> None:
    allowance = Allowance(100)
    allowance.keep(60)
    allowance.cover(40)
    with refused(NeedsMoreMemory):
        allowance.cover(41)


MUTATED: dict[str, tuple[Callable[[bytes], None], Callable[[], bytes]]] = {
    "weights": (read_weights, lambda: saved(state_dict(5, 3, 2))),
    "weights-before-1.6": (read_weights, lambda: saved(state_dict(5, 3, 2), legacy=True)),
    "list": (read_tokens, lambda: saved(list(tokens(ROWS)))),
    "modern": (read_tokens, lambda: saved(modern_vocab(list(tokens(ROWS)), 0))),
    "legacy": (read_tokens, lambda: saved(legacy_vocab(list(tokens(ROWS))))),
}
"""Files, and how each is read."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTATED)
def test_no_change_of_a_file_makes_it_take_much_memory(name: str) -> None:
    read, make = MUTATED[name]
    whole = make()
    places = st.integers(0, len(whole) - 1)

    @given(
        st.lists(st.tuples(places, st.integers(0, 255)), max_size=4),
        places,
        places,
        st.integers(0, 3000),
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def holds(changes: list[tuple[int, int]], begin: int, end: int, times: int) -> None:
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        # A part that is repeated is how a file of many members, opcodes or items comes about.
        data[end:end] = data[begin:end][:64] * times
        with peak() as found, suppress(InvalidModelFile):
            read(bytes(data))
        assert found.size < WORKSPACE

    holds()
