from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.cache.residency import Resident
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.model.intent_model import IntentModel
from predictor.model.traffic_counter import TrafficCounter, TrafficTotals
from serving.domain.answer_counts import AnswerCounts
from serving.domain.errors import InvalidModelId
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from tests.builders import PATIENCE, fingerprint_of
from tests.predictor.builders import model

LABELS = ("a", "b", "a")

Counted = tuple[int, int, int, float, bool, bool]

answers = st.lists(
    st.integers(0, 20).flatmap(
        lambda tokens: st.tuples(
            st.just(tokens), st.integers(0, tokens), st.integers(0, 2), st.floats(0, 1), st.booleans(), st.booleans()
        )
    ),
    max_size=60,
)


def count(counter: TrafficCounter, answered: list[Counted]) -> None:
    for tokens, unknown, winner, score, is_empty, fell_back in answered:
        counter.count(tokens, unknown, winner, score, is_empty=is_empty, fell_back=fell_back)


def in_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


@given(answers)
def test_what_is_counted_is_the_sum_over_all_answers(answered: list[Counted]) -> None:
    counter = TrafficCounter(LABELS)
    count(counter, answered)
    found, scores = counter.snapshot_with_scores()
    winners = [LABELS[winner] for _, _, winner, *_ in answered]
    bins = [min(int(score * 20), 19) for _, _, _, score, _, _ in answered]
    assert found == AnswerCounts(
        documents=len(answered),
        empty_documents=sum(is_empty for *_, is_empty, _ in answered),
        tokens=sum(tokens for tokens, *_ in answered),
        unknown_tokens=sum(unknown for _, unknown, *_ in answered),
        fallbacks=sum(fell_back for *_, fell_back in answered),
        confidence=tuple(bins.count(number) for number in range(20)),
        labels={label: winners.count(label) for label in winners},
    )
    assert counter.documents == len(answered)
    assert scores == pytest.approx(sum(score for _, _, _, score, _, _ in answered))


@given(st.lists(answers, min_size=2, max_size=4))
def test_nothing_is_lost_where_threads_count_at_the_same_time(shares: list[list[Counted]]) -> None:
    counter, alone = TrafficCounter(LABELS), TrafficCounter(LABELS)
    in_threads([lambda share=share: count(counter, share) for share in shares])  # type: ignore[misc]
    for share in shares:
        count(alone, share)
    assert counter.snapshot() == alone.snapshot()


@given(st.lists(answers, max_size=4))
def test_totals_are_the_sums_of_their_counters(shares: list[list[Counted]]) -> None:
    totals, together = TrafficTotals(), TrafficCounter(LABELS)
    for share in shares:
        counter = TrafficCounter(LABELS)
        count(counter, share)
        counter.add_to(totals)
        count(together, share)
    whole = together.snapshot()
    assert (totals.documents, totals.tokens, totals.unknown_tokens) == (
        whole.documents, whole.tokens, whole.unknown_tokens,
    )  # fmt: skip
    assert (totals.empty_documents, totals.fallbacks) == (whole.empty_documents, whole.fallbacks)
    assert tuple(totals.confidence) == whole.confidence


def test_a_counter_that_has_ended_stays_as_it_is() -> None:
    counter = TrafficCounter(LABELS)
    counter.count(3, 1, 0, 0.5, is_empty=False, fell_back=False)
    before = counter.snapshot()
    counter.end()
    counter.count(3, 1, 0, 0.5, is_empty=True, fell_back=True)
    assert counter.snapshot() == before


# The counts that a model keeps of its answers.


def traffic_of(it: IntentModel, *queries: Query) -> AnswerCounts:
    counter = TrafficCounter(it.labels)
    it.predict(queries, counter)
    return counter.snapshot()


def asked(*documents: str, **keys: Any) -> list[Query]:
    return [Query("m", document, **keys) for document in documents]


@pytest.mark.parametrize("default", [0, None], ids=["unknown-token", "left-out"])
def test_tokens_that_the_vocabulary_lacks_are_unknown_and_documents_of_nothing_else_empty(default: int | None) -> None:
    it = model(["<unk>", "a", "b"], ["x", "y"], default)
    found = traffic_of(it, *asked("a b c", "c d", "", "a"))
    assert (found.documents, found.empty_documents, found.tokens, found.unknown_tokens) == (4, 2, 6, 3)
    assert sum(found.confidence) == sum(found.labels.values()) == 4


@pytest.mark.parametrize("default", [0, None], ids=["unknown-token", "left-out"])
def test_n_grams_are_no_tokens_but_a_document_with_one_that_is_known_is_not_empty(default: int | None) -> None:
    it = model(["<unk>", "a b"], ["x", "y"], default, Tokenizer="basic_english+words:2")
    found = traffic_of(it, *asked("a b", "a c"))
    assert (found.documents, found.empty_documents, found.tokens, found.unknown_tokens) == (2, 1, 4, 4)


def test_the_best_label_is_counted_whatever_the_threshold() -> None:
    it = model(["<unk>", "a", "b"], ["x", "y"], 0)
    found = traffic_of(it, *asked("a", "b", threshold=1.0))
    best = [answer.label for answer in it.predict(asked("a", "b")) if isinstance(answer, Prediction)]
    assert found.fallbacks == 2
    assert found.labels == {label: best.count(label) for label in best}


def test_queries_that_are_refused_are_not_counted() -> None:
    it = model(["<unk>", "a"], ["x", "y"], 0)
    assert traffic_of(it, *asked("a", explain=("no such label",))).documents == 0


# The counter of a model.


def resident(mark: int, generation: int, name: str = "m") -> Resident[IntentModel]:
    """Return a copy of a model in memory; another ``mark`` means other files."""
    return Resident(ModelId(name), model(["<unk>", "a"], ["x", "y"], 0), fingerprint_of(mark), generation, 1, 0.0)


def ask(registry: TrafficRegistry, stay: Resident[IntentModel], times: int = 1) -> None:
    counter = registry.counter_of(stay)
    assert counter is not None
    stay.model.predict(asked("a") * times, counter)


def documents(registry: TrafficRegistry) -> dict[str, int]:
    return {counted.model_id: counted.counter.documents for counted in registry.busiest()}


def test_a_copy_keeps_its_counter_when_it_is_loaded_again_and_its_replacement_begins_anew() -> None:
    registry = TrafficRegistry(4)
    ask(registry, resident(1, 1), 2)
    ask(registry, resident(1, 2), 3)
    assert documents(registry) == {"m": 5}
    ask(registry, resident(2, 3))
    assert documents(registry) == {"m": 1}
    assert registry.totals().documents == 6


def test_an_answer_of_a_copy_that_was_replaced_meanwhile_does_not_begin_its_counter_again() -> None:
    registry = TrafficRegistry(4)
    old, new = resident(1, 1), resident(2, 2)
    before = registry.counter_of(old)
    ask(registry, new)
    assert registry.counter_of(old) is None
    assert before is not None
    old.model.predict(asked("a"), before)
    assert documents(registry) == {"m": 1}
    assert registry.totals().documents == 1


def test_two_stays_of_one_copy_that_answer_at_the_same_time_share_its_counter() -> None:
    registry = TrafficRegistry(4)
    first, second = resident(1, 1), resident(1, 2)
    assert len({id(registry.counter_of(stay)) for stay in (first, second, first)}) == 1


def test_counters_of_the_models_that_were_asked_longest_ago_go_first_and_stay_in_the_totals() -> None:
    registry = TrafficRegistry(2)
    for name, mark in (("a", 1), ("b", 2), ("a", 1), ("c", 3)):
        ask(registry, resident(mark, mark, name))
    assert documents(registry) == {"a": 2, "c": 1}
    assert registry.totals().documents == 4


def test_the_busiest_come_first_and_one_can_be_asked_for() -> None:
    registry = TrafficRegistry(8)
    for number in range(1, 5):
        ask(registry, resident(number, number, f"m{number}"), number)
    assert [counted.model_id for counted in registry.listed("", 2)] == ["m4", "m3"]
    assert len(registry.listed("", 0)) == 4
    assert [counted.model_id for counted in registry.listed("m1", 0)] == ["m1"]
    assert registry.listed("unknown", 0) == []
    with pytest.raises(InvalidModelId):
        registry.listed("../etc", 0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), max_size=40))
def test_totals_never_fall_and_hold_every_answer(history: list[tuple[str, int]]) -> None:
    registry = TrafficRegistry(2)
    copies: dict[str, int] = {}
    for generation, (name, mark) in enumerate(history, start=1):
        # The marks of a model never fall: a later copy never has the files of a copy that was replaced.
        copies[name] = max(copies.get(name, 0), mark)
        stay = Resident(
            ModelId(name), SHARED_MODEL, fingerprint_of(copies[name]), generation, 1, 0.0
        )  # fmt: skip
        ask(registry, stay)
        assert registry.totals().documents == generation
        assert len(registry.busiest()) <= 2


SHARED_MODEL = model(["<unk>", "a"], ["x", "y"], 0)


def test_totals_do_not_fall_while_threads_count_and_counters_go() -> None:
    registry = TrafficRegistry(2)
    ended = threading.Event()
    seen: list[int] = []

    def ask_all() -> None:
        for turn in range(300):
            stay = Resident(ModelId(f"m{turn % 5}"), SHARED_MODEL, fingerprint_of(turn), turn + 1, 1, 0.0)
            counter = registry.counter_of(stay)
            if counter is not None:
                counter.count(1, 0, 0, 0.5, is_empty=False, fell_back=False)

    def look() -> None:
        while not ended.is_set():
            seen.append(registry.totals().documents)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        in_threads([ask_all, ask_all])
    finally:
        ended.set()
        watcher.join(PATIENCE)
    assert seen == sorted(seen)


def test_a_counter_holds_no_model_in_memory() -> None:
    registry = TrafficRegistry(2)
    stay = resident(1, 1)
    ask(registry, stay)
    (counted,) = registry.busiest()
    assert counted.model() is stay.model
    del stay
    assert counted.model() is None
    assert counted.baseline is None
