from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from predictor.cache.residency import Lease, Reservation, Resident, ResidentModels
from serving.domain.errors import MemoryInUse, ModelTooLarge, ServingError
from serving.domain.model_id import ModelId
from tests.builders import fingerprint_of
from tests.fakes.model_source import FakeModel

FILES = fingerprint_of(1)


def residents_of(max_bytes: int, max_models: int = 1000) -> ResidentModels[FakeModel]:
    return ResidentModels(max_bytes=max_bytes, max_models=max_models)


def admit(residents: ResidentModels[FakeModel], name: str, size: int = 10) -> Resident[FakeModel]:
    return residents.admit(ModelId(name), FakeModel(ModelId(name), FILES, size), FILES, residents.reserve(size))


def held(residents: ResidentModels[FakeModel], names: str) -> str:
    """Return the models in memory, of ``names`` with one letter each. The call makes them the most recently used."""
    return "".join(name for name in names if residents.get(ModelId(name)) is not None)


def lease(residents: ResidentModels[FakeModel], name: str) -> Lease[FakeModel]:
    resident = residents.get(ModelId(name))
    assert resident is not None
    return residents.lease(resident)


def test_the_model_that_was_not_used_for_longest_makes_room_in_bytes() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    assert residents.get(ModelId("a")) is not None
    admit(residents, "d", 11)
    assert held(residents, "abcd") == "ad"
    assert residents.bytes_held == 21


def test_only_as_many_models_leave_as_the_new_one_needs() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    admit(residents, "d", 10)
    assert held(residents, "abcd") == "bcd"


def test_the_model_that_was_not_used_for_longest_makes_room_in_count() -> None:
    residents = residents_of(max_bytes=1000, max_models=3)
    for name in "abc":
        admit(residents, name)
    assert residents.get(ModelId("a")) is not None
    admit(residents, "d")
    assert held(residents, "abcd") == "acd"
    assert len(residents) == 3


def test_models_being_loaded_count_towards_the_number_of_models() -> None:
    residents = residents_of(max_bytes=1000, max_models=2)
    admit(residents, "a")
    residents.reserve(1)
    residents.reserve(1)
    assert len(residents) == 0
    with pytest.raises(MemoryInUse):
        residents.reserve(1)


def test_a_model_in_use_is_passed_over_and_counts_as_used_just_now() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    in_use = lease(residents, "a")
    residents.get(ModelId("b"))
    residents.get(ModelId("c"))
    admit(residents, "d", 10)
    in_use.release()
    admit(residents, "e", 10)
    assert held(residents, "abcde") == "ade"


def test_nothing_leaves_for_a_model_that_finds_no_room_even_so() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    with lease(residents, "b"):
        with pytest.raises(MemoryInUse):
            residents.reserve(21)
        assert len(residents) == 3
        assert residents.bytes_held == 30
    # The order is unchanged, too: the idle models come first, then the model that was used last.
    for name in "xyz":
        admit(residents, name)
        assert residents.bytes_held == 30
    assert held(residents, "abc") == ""


def test_the_order_of_use_survives_a_refusal() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    with lease(residents, "c"), pytest.raises(MemoryInUse):
        residents.reserve(21)
    admit(residents, "d", 10)
    assert held(residents, "abcd") == "bcd"


@pytest.mark.parametrize("max_models", [3, 1000])
def test_a_model_larger_than_the_budget_leaves_the_others_in_memory(max_models: int) -> None:
    residents = residents_of(max_bytes=30, max_models=max_models)
    for name in "abc":
        admit(residents, name)
    with pytest.raises(ModelTooLarge):
        residents.reserve(31)
    assert held(residents, "abc") == "abc"
    assert residents.bytes_held == 30


def test_a_model_as_large_as_the_budget_is_taken() -> None:
    residents = residents_of(max_bytes=30)
    admit(residents, "a", 30)
    admit(residents, "b", 30)
    assert held(residents, "ab") == "b"


def test_everything_in_use_is_told_and_nothing_is_overcommitted() -> None:
    residents = residents_of(max_bytes=20)
    admit(residents, "a")
    admit(residents, "b")
    with lease(residents, "a"), lease(residents, "b"):
        with pytest.raises(MemoryInUse):
            residents.reserve(1)
        assert residents.bytes_held == 20
    residents.reserve(1)


def test_a_model_that_turned_out_larger_makes_more_room() -> None:
    residents = residents_of(max_bytes=30)
    for name in "ab":
        admit(residents, name)
    reservation = residents.reserve(5)
    residents.resize(reservation, 20)
    assert held(residents, "ab") == "b"
    assert residents.bytes_held == 30


def test_a_model_that_turned_out_larger_than_the_budget_leaves_the_others_in_memory() -> None:
    residents = residents_of(max_bytes=30)
    for name in "ab":
        admit(residents, name)
    reservation = residents.reserve(10)
    with pytest.raises(ModelTooLarge):
        residents.resize(reservation, 31)
    assert held(residents, "ab") == "ab"
    assert residents.bytes_held == 30
    residents.cancel(reservation)
    assert residents.bytes_held == 20


def test_a_model_that_turned_out_smaller_gives_the_rest_back() -> None:
    residents = residents_of(max_bytes=30)
    reservation = residents.reserve(30)
    residents.resize(reservation, 10)
    assert residents.bytes_held == 10
    residents.reserve(20)


@pytest.mark.parametrize("end", ["removed", "replaced"])
def test_a_model_that_goes_while_in_use_counts_until_its_last_lease_ends(end: str) -> None:
    residents = residents_of(max_bytes=30)
    admit(residents, "a")
    first, second = lease(residents, "a"), lease(residents, "a")
    if end == "removed":
        residents.discard(ModelId("a"))
        others = 0
    else:
        admit(residents, "a", 12)
        others = 12
    old = first.model
    assert residents.bytes_held == others + 10
    first.release()
    assert residents.bytes_held == others + 10
    assert second.model is old
    with pytest.raises(MemoryInUse):
        residents.reserve(21)
    second.release()
    assert residents.bytes_held == others
    residents.reserve(30)


def test_the_newer_copy_takes_the_place_of_the_older_one() -> None:
    residents = residents_of(max_bytes=30)
    old = admit(residents, "a", 10)
    new = admit(residents, "a", 12)
    assert residents.get(ModelId("a")) is new
    assert new.generation > old.generation
    assert residents.bytes_held == 12
    assert len(residents) == 1


def test_bytes_being_loaded_are_held_until_cancelled_and_cancelling_again_is_harmless() -> None:
    residents = residents_of(max_bytes=30)
    first, second = residents.reserve(10), residents.reserve(10)
    assert residents.bytes_held == 20
    residents.cancel(first)
    residents.cancel(first)
    assert residents.bytes_held == 10
    with pytest.raises(MemoryInUse):
        residents.reserve(21)
    residents.cancel(second)
    assert residents.bytes_held == 0


def test_cancelling_after_the_model_came_takes_nothing_from_it() -> None:
    residents = residents_of(max_bytes=30)
    reservation = residents.reserve(10)
    residents.admit(ModelId("a"), FakeModel(ModelId("a"), FILES, 10), FILES, reservation)
    residents.cancel(reservation)
    assert residents.bytes_held == 10


def test_releasing_a_lease_again_does_not_end_the_lease_of_another() -> None:
    residents = residents_of(max_bytes=10)
    admit(residents, "a")
    first, second = lease(residents, "a"), lease(residents, "a")
    first.release()
    first.release()
    with pytest.raises(MemoryInUse):
        residents.reserve(1)
    second.release()
    residents.reserve(10)


def test_a_lease_that_has_ended_gives_the_model_no_more() -> None:
    residents = residents_of(max_bytes=10)
    admit(residents, "a")
    ended = lease(residents, "a")
    with ended as model:
        assert model.size == 10
    with pytest.raises(RuntimeError):
        _ = ended.model


def test_a_lease_ends_when_its_block_fails() -> None:
    residents = residents_of(max_bytes=10)
    resident = admit(residents, "a")
    with pytest.raises(ZeroDivisionError), residents.lease(resident):
        _ = 1 / 0
    assert resident.leases == 0


def test_removing_what_is_not_there_is_harmless() -> None:
    residents = residents_of(max_bytes=10)
    residents.discard(ModelId("a"))
    assert (len(residents), residents.bytes_held) == (0, 0)


def test_looking_at_what_is_held_changes_nothing_in_the_order_of_use() -> None:
    residents = residents_of(max_bytes=30)
    for name in "abc":
        admit(residents, name)
    lease(residents, "a").release()
    lease(residents, "b").release()
    assert [resident.model_id for resident in residents.residents()] == ["b", "a", "c"]
    admit(residents, "d", 10)
    assert [resident.model_id for resident in residents.residents() if resident.model_id != "d"] == ["b", "a"]


def test_a_pinned_model_is_never_evicted() -> None:
    residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=30, max_models=3, pinned={ModelId("a")})
    for name in "abcdefg":
        admit(residents, name)
    assert held(residents, "abcdefg") == "afg"
    with pytest.raises(MemoryInUse):
        residents.reserve(21)
    assert held(residents, "afg") == "afg"
    assert residents.is_pinned(ModelId("a"))
    assert not residents.is_pinned(ModelId("f"))


def test_a_pinned_model_can_be_replaced_and_removed() -> None:
    residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=30, max_models=3, pinned={ModelId("a")})
    admit(residents, "a", 10)
    admit(residents, "a", 12)
    assert residents.bytes_held == 12
    residents.discard(ModelId("a"))
    assert residents.bytes_held == 0


def test_only_models_that_made_room_are_counted_as_evicted() -> None:
    residents = residents_of(max_bytes=20)
    for name in "abcd":
        admit(residents, name)
    residents.discard(ModelId("d"))
    with lease(residents, "c"), pytest.raises(MemoryInUse):
        residents.reserve(20)
    assert residents.statistics.evictions == 2


BUDGET = 100
NAMES = st.sampled_from("abcdef")
SIZES = st.integers(0, BUDGET + 10)
NUMBERS = st.integers(0, 1000)


class AnySequence(RuleBasedStateMachine):
    """Any events in any order: the models that are reported as held are the ones that Python keeps alive."""

    def __init__(self) -> None:
        super().__init__()
        self.residents = residents_of(max_bytes=BUDGET, max_models=4)
        self.models: weakref.WeakSet[FakeModel] = weakref.WeakSet()
        self.reservations: list[Reservation] = []
        self.leases: list[tuple[str, Lease[FakeModel]]] = []

    def room(self) -> tuple[int, int]:
        return len(self.residents), self.residents.bytes_held

    @contextmanager
    def refused_for_a_reason(self, size: int) -> Iterator[None]:
        before = self.room()
        refusal: type[ServingError] | None = None
        try:
            yield
        except ServingError as error:
            refusal = type(error)
        if refusal is not None:
            assert refusal is (ModelTooLarge if size > BUDGET else MemoryInUse)
            assert self.room() == before

    @rule(size=SIZES)
    def reserve(self, size: int) -> None:
        with self.refused_for_a_reason(size):
            self.reservations.append(self.residents.reserve(size))

    @precondition(lambda self: self.reservations)
    @rule(number=NUMBERS, size=SIZES)
    def resize(self, number: int, size: int) -> None:
        with self.refused_for_a_reason(size):
            self.residents.resize(self.reservations[number % len(self.reservations)], size)

    @precondition(lambda self: self.reservations)
    @rule(number=NUMBERS, name=NAMES)
    def admit(self, number: int, name: str) -> None:
        reservation = self.reservations.pop(number % len(self.reservations))
        model = FakeModel(ModelId(name), FILES, reservation.size)
        self.models.add(model)
        self.residents.admit(ModelId(name), model, FILES, reservation)
        self.residents.cancel(reservation)

    @precondition(lambda self: self.reservations)
    @rule(number=NUMBERS, times=st.integers(1, 2))
    def cancel(self, number: int, times: int) -> None:
        reservation = self.reservations.pop(number % len(self.reservations))
        for _ in range(times):
            self.residents.cancel(reservation)

    @rule(name=NAMES)
    def discard(self, name: str) -> None:
        self.residents.discard(ModelId(name))

    @rule(name=NAMES)
    def lease(self, name: str) -> None:
        resident = self.residents.get(ModelId(name))
        if resident is not None:
            self.leases.append((name, self.residents.lease(resident)))

    @precondition(lambda self: self.leases)
    @rule(number=NUMBERS, times=st.integers(1, 2))
    def release(self, number: int, times: int) -> None:
        _, ended = self.leases.pop(number % len(self.leases))
        for _ in range(times):
            ended.release()

    @invariant()
    def the_budget_holds_and_the_books_are_right(self) -> None:
        alive = sum(model.size for model in self.models)
        assert self.residents.bytes_held == alive + sum(reservation.size for reservation in self.reservations)
        assert self.residents.bytes_held <= BUDGET
        assert len(self.residents) + len(self.reservations) <= 4

    @invariant()
    def models_in_use_are_there(self) -> None:
        for _, lease in self.leases:
            assert lease.model in self.models


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
