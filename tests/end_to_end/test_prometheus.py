"""A real Prometheus scrapes real services under load: every panel and every alert has its data."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from intent_serving_client.channels import ChannelOptions
from serving.access.keys import hash_of, new_key
from serving.client import IntentClient, Query
from serving.domain.errors import (
    ModelNotFound,
    ModelUnusable,
    OutOfCapacity,
    PermissionDenied,
    ServingError,
    Unauthenticated,
)
from serving.domain.model_id import ModelId
from serving.domain.releases.changes import released, with_canary
from serving.volume.release_writing import change_release
from tests.builders import free_port, reseal
from tests.conftest import ROOT
from tests.deploy.observability import dashboard, dashboard_queries, metrics_in, queries_of_the_runbook, rules_of
from tests.end_to_end.processes import Service, running_service, start, transports
from tests.end_to_end.prometheus import Prometheus, running_prometheus
from tests.end_to_end.transports.certificates import Authority
from tests.predictor.builders import saved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOAD_SECONDS: Final = 60.0
WINDOW: Final = "20s"
"""Window of rates, as Grafana would choose it for scrapes every second and more."""
SAMPLES: Final = ("clinc150-banking", "clinc150-kitchen", "clinc150-travel")
TENANTS: Final = 12
"""Number of models that are queried in turn, only some of which fit into memory."""
QUESTIONS: Final = ("what is my balance", "how long do i cook an egg", "book a flight to oslo", "xyzzy plugh")


@dataclass(frozen=True)
class Watched:
    """Services under load, and the Prometheus that watches them."""

    prometheus: Prometheus
    predictor: Service
    began: float
    ended: float
    """Period of the load, in seconds since 1970."""


class Load:
    """Load of several callers: for models in memory or not, good, bad or on trial; with and without a right to them."""

    def __init__(self, address: str, authority: Path, keys: dict[str, str]) -> None:
        self._open = ExitStack()
        self._clients = {
            name: self._open.enter_context(
                IntentClient(address, options=ChannelOptions(tls_authority=authority, credential=key))
            )
            for name, key in keys.items()
        }
        self.refused: dict[type[ServingError], int] = {}

    def run(self, seconds: float, change: Callable[[], None]) -> None:
        """Send the load for ``seconds``; call ``change`` halfway."""
        halfway, end = time.monotonic() + seconds / 2, time.monotonic() + seconds
        changed = False
        turn = 0
        while (now := time.monotonic()) < end:
            if now > halfway and not changed:
                change()
                changed = True
            self._turn(turn)
            turn += 1
            # This is a load, not a benchmark: other tests run beside it.
            time.sleep(0.02)

    def close(self) -> None:
        self._open.close()

    def _turn(self, turn: int) -> None:
        question = QUESTIONS[turn % len(QUESTIONS)]
        caller = self._clients["caller"]
        # This model is always in memory, and is queried often enough for its drift to be reported.
        caller.predict_batch([Query("clinc150", each) for each in QUESTIONS])
        caller.predict(f"tenant-{turn % TENANTS:02}", question)
        caller.predict("helpdesk", f"{question} {turn}")
        for name, model_id in (("caller", "no-such-model"), ("stranger", "clinc150"), ("narrow", "tenant-00"),
                               ("greedy", "clinc150")):  # fmt: skip
            self._refused(name, model_id, question)
        if turn % 10 == 0:
            for model_id in ("broken", "hostile"):
                self._refused("caller", model_id, question)
            caller.explain("clinc150", question)

    def _refused(self, name: str, model_id: str, question: str) -> None:
        try:
            self._clients[name].predict(model_id, question)
        except ServingError as error:
            self.refused[type(error)] = self.refused.get(type(error), 0) + 1


def put_models(volume: Path) -> None:
    """Put good, bad and hostile models onto the volume, and a name with a canary."""
    shutil.copytree(ROOT / "models" / "clinc150", volume / "clinc150")
    for number in range(TENANTS):
        shutil.copytree(ROOT / "models" / SAMPLES[number % len(SAMPLES)], volume / f"tenant-{number:02}")
    for version, sample in (("1", SAMPLES[0]), ("2", SAMPLES[2])):
        shutil.copytree(ROOT / "models" / sample, volume / "helpdesk" / version)
    at = datetime.now(UTC)
    change_release(volume, ModelId("helpdesk"), lambda known: released(known, version="1", by="test", at=at))
    change_release(
        volume,
        ModelId("helpdesk"),
        lambda known: with_canary(known, version="2", share=0.5, max_disagreement=1.0, by="test", at=at),
    )
    for model_id, damage in (("broken", b"no weights"), ("hostile", saved(Hostile()))):
        shutil.copytree(ROOT / "models" / SAMPLES[0], volume / model_id)
        (volume / model_id / "model.pth").write_bytes(damage)
        reseal(volume / model_id)


class Hostile:
    """Object whose pickle asks for a command to be run."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os  # noqa: PLC0415 - the module that a hostile file would name

        return os.system, ("true",)


def put_access(file: Path) -> dict[str, str]:
    """Write the access file; return the keys of a caller, one with few models, one with a small quota, a stranger."""
    keys = {name: new_key() for name in ("caller", "narrow", "greedy", "stranger")}
    rights = ["predict", "explain"]
    identities: dict[str, dict[str, Any]] = {
        "caller": {"models": ["*"], "rights": rights},
        "narrow": {"models": ["clinc150"], "rights": rights},
        "greedy": {"models": ["*"], "rights": rights, "limits": {"requests_per_second": 1, "burst": 1}},
    }
    written = {name: {**said, "keys": [{"sha256": hash_of(keys[name])}]} for name, said in identities.items()}
    file.write_text(json.dumps({"identities": written}))
    return keys


@pytest.fixture(scope="module", params=transports())
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    volume = folder / "models"
    volume.mkdir()
    put_models(volume)
    keys = put_access(folder / "access.json")
    authority = Authority(folder, "authority")
    certificate, key = authority.signed("frontend")
    ports = {"frontend": free_port(), "predictor": free_port()}
    with ExitStack() as running:
        predictor = running.enter_context(
            running_service(
                "predictor", volume, folder, "--metrics-port", str(ports["predictor"]), "--model-memory", "9MiB"
            )
        )
        flags: tuple[str, ...] = ("--routes", f"intent-classification=predictor://{predictor.address}")
        flags += ("--metrics-port", str(ports["frontend"]), "--access-file", str(folder / "access.json"))
        flags += ("--tls-certificate", str(certificate), "--tls-key", str(key))
        frontend = start("frontend", volume, folder, *flags, transport=request.param)
        running.callback(frontend.kill)
        frontend.wait_until_logged("ready")
        prometheus = running.enter_context(
            running_prometheus(folder, {name: f"127.0.0.1:{port}" for name, port in ports.items()})
        )
        load = Load(frontend.address, authority.certificate, keys)
        running.callback(load.close)

        def replace_by_a_bad_copy() -> None:
            (volume / "clinc150" / "model.pth").write_bytes(b"no weights")

        began = time.time()
        load.run(LOAD_SECONDS, replace_by_a_bad_copy)
        # The load was refused wherever it should be, and with the right error.
        assert set(load.refused) == {ModelNotFound, ModelUnusable, OutOfCapacity, PermissionDenied, Unauthenticated}
        yield Watched(prometheus, predictor, began, time.time())


def test_both_services_are_scraped(watched: Watched) -> None:
    assert watched.prometheus.targets() == {"frontend": "up", "predictor": "up", "prometheus": "up"}
    for metric in ("intent_build_info", "process_resident_memory_bytes", "intent_request_seconds_count"):
        assert set(jobs_with(watched.prometheus, metric)) >= {"frontend", "predictor"}


def jobs_with(prometheus: Prometheus, metric: str) -> list[str]:
    return [series["metric"]["job"] for series in prometheus.query(f"count by (job) ({metric})")]


def test_every_query_of_the_dashboard_returns_data(watched: Watched, figure: Callable[[str], None]) -> None:
    tables = {panel["title"] for panel in dashboard()["panels"] if panel["type"] == "table"}
    found = {
        query: watched.prometheus.values(query.asked(WINDOW, "1m"))
        if query.panel in tables
        else watched.prometheus.values_within(query.asked(WINDOW, "1m"), watched.began, watched.ended)
        for query in dashboard_queries()
    }
    assert [query for query, values in found.items() if not values] == []
    values = sum(map(len, found.values()))
    figure(f"{len(found)} queries of the dashboard return {values} values after {LOAD_SECONDS:.0f} s of load")


def test_panels_show_what_was_done(watched: Watched) -> None:
    asked = {query.panel: query.asked(WINDOW, "1m") for query in dashboard_queries()}

    def most(panel: str) -> float:
        return max(watched.prometheus.values_within(asked[panel], watched.began, watched.ended))

    for panel in (
        "Calls",
        "Refused",
        "Calls by code",
        "Failures",
        "Callers turned away",
        "Over their quota",
        "Fallbacks",
    ):
        assert most(panel) > 0, panel
    for panel in ("Hit rate", "Agreement with stable", "Unknown tokens", "Share of the busiest"):
        assert 0 < most(panel) <= 1, panel
    # The certificate is valid for two days, and both replicas are up.
    assert 86_400 < most("Certificates") < 3 * 86_400
    assert most("Replicas") == 1


def test_what_is_chosen_above_the_panels_is_found(watched: Watched) -> None:
    chosen = watched.prometheus.query('count by (job, instance) (intent_build_info{job=~".*"})')
    assert {series["metric"]["job"] for series in chosen} == {"frontend", "predictor"}


def test_every_rule_can_be_evaluated(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert len(rules) == len(rules_of("alerts.yml")) + len(rules_of("recording.yml"))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_services_tell_every_metric_that_alerts_look_at(watched: Watched) -> None:
    wanted = {metric for rule in rules_of("alerts.yml") for metric in metrics_in(rule["expr"])}
    assert [metric for metric in sorted(wanted) if not watched.prometheus.query(metric)] == []


def test_labels_that_alerts_choose_by_are_those_that_services_tell(watched: Watched) -> None:
    for selector in (
        'intent_request_seconds_count{method="PredictionService/Predict", code="OK"}',
        'intent_request_seconds_bucket{method=~".*/(Predict|PredictBatch|Explain|ModelInfer|infer)"}',
        'intent_request_seconds_count{method=~"Predictor/.*"}',
        'intent_cache_failures_total{reason="forbidden_pickle"}',
        'intent_requests_refused_total{reason=~"overload|deadline"}',
        'intent_model_drift_verdict{signal=~"unknown_tokens|empty_documents"}',
        'intent_release_compared_total{role=~"canary|shadow"}',
    ):
        assert watched.prometheus.query(selector), selector


def test_queries_of_the_runbook_return_data(watched: Watched) -> None:
    queries = [query.replace("NAME", "helpdesk") for query in queries_of_the_runbook()]
    assert [query for query in queries if not watched.prometheus.values(query)] == []


def test_alerts_of_what_was_done_fire_and_others_do_not(watched: Watched) -> None:
    alerts = watched.prometheus.alerts()
    firing = {name for name, states in alerts.items() if "firing" in states}
    assert firing >= {"IntentForbiddenPickle", "IntentReplacementRefused", "IntentTrialDisagrees", "IntentLoadsFailing"}
    # These alerts take minutes to fire.
    assert {"IntentAuthenticationFailures", "IntentPermissionDenied", "IntentQuotaRefusals"} <= set(alerts)
    for quiet in (
        "IntentServiceDown", "IntentNoFrontend", "IntentNoPredictor", "IntentMetricsMissing", "IntentRestarts",
        "IntentErrorBudgetBurnsFast", "IntentInternalErrors", "IntentOverloaded", "IntentQueueGrowing",
        "IntentCacheOverBudget", "IntentVolumeUnavailable", "IntentCanaryTakenBack", "IntentReleasesDiffer",
        "IntentConfigurationNotReloaded", "IntentMemoryNearLimit", "IntentFilesNearLimit",
    ):  # fmt: skip
        assert quiet not in alerts


def test_a_predictor_that_dies_is_missed(watched: Watched) -> None:
    # This test is the last one, because all tests share the services.
    watched.predictor.kill()
    missed: set[str] = set()
    given_up = time.monotonic() + 60
    while not missed >= {"IntentServiceDown", "IntentNoPredictor"}:
        assert time.monotonic() < given_up, missed
        time.sleep(0.2)
        missed = set(watched.prometheus.alerts())
