"""Pipelines over real models, in real processes: the same answers as asking by hand in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from serving.client import IntentClient, Prediction, Query
from serving.domain.model_id import ModelId
from serving.domain.prediction import Onward
from serving.wire.batches import outcomes_in_batches
from tests.builders import publish
from tests.conftest import shared
from tests.end_to_end.processes import Stack, stack
from tests.samples import copy_samples
from training.data import DataSet, Example
from training.model import measure, train_model
from training.model_folder import Provenance, model_files, write_model_folder
from training.readers import read_data
from training.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE: Final = Recipe(tokenizer="basic_english+normalized", epochs=12)
ROUTER: Final = "domains"


def train(volume: Path, model_id: str, data: DataSet) -> None:
    """Train a model and publish it."""
    model = train_model(data, RECIPE, 0, lambda _: None)
    files = model_files(model, measure(model.served, ()), Provenance(data, RECIPE, 0), ModelId(model_id), "1.0")
    write_model_folder(volume, ModelId(model_id), files, replace=False)


def of_domains(rows: Sequence[Example], domain_of: Mapping[str, str]) -> tuple[Example, ...]:
    """Return the rows labelled with their domains."""
    return tuple(replace(row, label=domain_of[row.label]) for row in rows)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return read_data(shared("datasets/clinc150/data_full.json")).without("oos")


@pytest.fixture(scope="module")
def domain_of() -> Mapping[str, str]:
    domains = json.loads(shared("datasets/clinc150/domains.json").read_text())
    return {label: domain for domain, labels in domains.items() for label in labels}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: DataSet, domain_of: Mapping[str, str]) -> Iterator[Stack]:
    """A frontend and a predictor with the samples, a router, a model of each domain, and pipelines over them."""
    folder = tmp_path_factory.mktemp("pipelines")
    volume = copy_samples(folder / "models")
    splits = (of_domains(data.train, domain_of), of_domains(data.validation, domain_of), ())
    train(volume, ROUTER, DataSet(*splits, sources=()))
    for domain in sorted(set(domain_of.values())):
        train(volume, domain, data.keeping([label for label in domain_of if domain_of[label] == domain]))
    pipeline(
        volume,
        "router",
        {"ask": ROUTER, "route": {name: name for name in set(domain_of.values())}, "otherwise": "clinc150"},
    )
    pipeline(volume, "cascade", {"ask": "clinc150-banking", "otherwise": "clinc150"})
    with stack(volume, folder) as started:
        yield started


def pipeline(volume: Path, model_id: str, step: Mapping[str, Any]) -> None:
    publish(volume, model_id, files={}, Algorithm="pipeline", classes={}, Start="first", Steps={"first": step})


def answers_to(client: IntentClient, queries: Sequence[Query]) -> list[Prediction]:
    outcomes = [outcome for batch in outcomes_in_batches(client, queries) for outcome in batch]
    failed = next((outcome for outcome in outcomes if not isinstance(outcome, Prediction)), None)
    assert failed is None, failed
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def assert_same(answer: Prediction, asked: Prediction) -> None:
    """Check that two answers are the same. A score may differ in the last digit when others are asked together."""
    assert answer.label == asked.label
    assert answer.score == pytest.approx(asked.score, abs=1e-6)
    assert [best.label for best in answer.best] == [best.label for best in asked.best]
    assert (answer.fallback is None) is (asked.fallback is None)
    if answer.fallback is not None and asked.fallback is not None:
        assert answer.fallback.best.label == asked.fallback.best.label


def test_a_router_of_domains_answers_as_asking_its_models_by_hand_does(
    running: Stack, data: DataSet, domain_of: Mapping[str, str], figure: Any
) -> None:
    rows = data.test
    with IntentClient(running.frontend.address, timeout=60) as client:
        given = answers_to(client, [Query("router", row.text, k=2) for row in rows])
        domains = answers_to(client, [Query(ROUTER, row.text) for row in rows])
        models = ["clinc150" if answer.fallback else answer.label for answer in domains]
        by_hand = answers_to(client, [Query(model, row.text, k=2) for model, row in zip(models, rows, strict=True)])
        right_domains = answers_to(client, [Query(domain_of[row.label], row.text) for row in rows])

    for answer, domain, asked in zip(given, domains, by_hand, strict=True):
        assert_same(answer, asked)
        first, last = answer.path
        assert (first.label, first.onward is Onward.FELL_BACK) == (domain.label, domain.fallback is not None)
        assert (last.name, last.onward) == (asked.model_id, Onward.ANSWERED)

    def share(found: Sequence[str], wanted: Sequence[str]) -> float:
        return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(rows)

    labels = [row.label for row in rows]
    accuracy = share([answer.label for answer in given], labels)
    of_router = share([answer.label for answer in domains], [domain_of[label] for label in labels])
    of_parts = share([answer.label for answer in right_domains], labels)
    figure(
        f"router of ten domains on {len(rows)} rows: {accuracy:.2%} right; its parts {of_router:.2%} x {of_parts:.2%}"
        f" = {of_router * of_parts:.2%}"
    )
    assert accuracy >= of_router * of_parts


def test_a_cascade_asks_the_large_model_exactly_where_the_small_one_falls_back(running: Stack, figure: Any) -> None:
    rows = read_data(shared("datasets/clinc150/data_full.json")).test
    with IntentClient(running.frontend.address, timeout=60) as client:
        given, small, large = (
            answers_to(client, [Query(model, row.text) for row in rows])
            for model in ("cascade", "clinc150-banking", "clinc150")
        )
    went_on = 0
    for answer, first, second in zip(given, small, large, strict=True):
        wanted = first if first.fallback is None else second
        went_on += first.fallback is not None
        assert_same(answer, wanted)
        assert len(answer.path) == (1 if first.fallback is None else 2)
    figure(f"cascade on {len(rows)} rows: all as defined, {went_on} went on to the large model")
    assert 0 < went_on < len(rows)
