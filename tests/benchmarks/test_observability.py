from __future__ import annotations

import pytest

from benchmarks.observability.page import page, rows
from benchmarks.observability.results import Cost, Measurement, Pair, Plan, Results, Spans
from benchmarks.observability.services import VARIANTS
from benchmarks.reports.results import Machine

MACHINE = Machine("a processor", 2, 8.0, "Linux", "3.11.7")


def some_results(*costs: float, variant: str = "on") -> Results:
    nothing = Measurement(1000.0, 100.0)
    pairs = [Pair(nothing, Measurement(1000.0 * (1 - cost), 100.0 * (1 + cost / 2)), nothing) for cost in costs]
    return Results(
        "2026-11-21", MACHINE, Plan(), {"http2": {variant: pairs}}, {"http2": {variant: Spans(sent=3, dropped=1)}}
    )


def test_a_variant_is_held_against_the_mean_of_its_neighbours() -> None:
    pair = Pair(Measurement(900.0, 90.0), Measurement(950.0, 110.0), Measurement(1100.0, 110.0))
    assert pair.cost == pytest.approx(0.05)
    assert pair.processor_cost == pytest.approx(0.1)


def test_the_median_counts_and_half_of_the_rounds_are_told_beside_it() -> None:
    cost = Cost.of([0.01, 0.02, 0.03, 0.04, 0.90])
    assert (cost.median, cost.lower, cost.upper) == pytest.approx((0.03, 0.02, 0.04))
    assert cost.rounds == 5


@pytest.mark.parametrize(("cost", "verdict", "missed"), [(0.049, "reached", []), (0.051, "MISSED", ["http2"])])
def test_only_what_is_on_by_itself_has_a_target(cost: float, verdict: str, missed: list[str]) -> None:
    results = some_results(cost, cost)
    assert [row[-1] for row in rows(results, "http2")] == [verdict]
    assert results.missed() == missed
    others = some_results(0.9, variant="all-logged")
    assert [row[-1] for row in rows(others, "http2")] == [""]
    assert others.missed() == []


def test_the_page_tells_rates_costs_and_what_was_dropped() -> None:
    text = page(some_results(0.01, 0.02, 0.03, 0.04, 0.05))
    on = "metrics, and traces of 1 % of the calls, 10 a second at most"
    assert f"| {on} | 3.0% (2.0% to 4.0%) | 1.5% (1.0% to 2.0%) | reached |" in text
    assert "With nothing on 1,000 requests a second, 100 µs of processor time each." in text
    assert "3 arrived, 1 were dropped" in text
    assert "{" not in text


def test_results_are_read_as_they_were_written() -> None:
    results = some_results(0.01, 0.02)
    assert Results.from_json(results.to_json()) == results


def test_names_of_variants_are_different() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
