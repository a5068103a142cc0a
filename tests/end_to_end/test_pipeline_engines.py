"""Pipelines over engines that are down, hang or are slow, and over models that are deleted or lead in a circle."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from serving.client import AsyncIntentClient, IntentClient, ManagementClient, Prediction, Query
from serving.domain.errors import DeadlineExceeded, ModelUnusable, OutOfCapacity, ServingError, Unavailable
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Onward, PathStep
from serving.volume.publishing import publish as put_model
from serving.wire.residency_client import ask_residency
from tests.builders import PATIENCE, free_port, publish
from tests.conftest import ROOT, shared
from tests.end_to_end.processes import Service, running_service, start, transports
from tests.end_to_end.test_affinity import becomes
from tests.end_to_end.test_deadlines_and_cancellation import ask_frontend, is_admitted_soon, is_refused, resident_ids
from tests.end_to_end.test_uploads import eventually
from tests.exposition import Exposition
from tests.fakes.volume import stack_over_fake_volume
from tests.samples import copy_samples
from training.readers import read_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("pipeline_faults"),  # one worker starts the shared engines
]

SAMPLE: Final = ROOT / "models" / "clinc150-banking"
DOCUMENT, LABEL = "what is my balance", "balance"
HOME, AWAY, FOREIGN = "clinc150-banking", "clinc150-banking-away", "clinc150-banking-foreign"
"""Models of the same answers: of a predictor, of another predictor, and of a server of the Open Inference Protocol."""
ALGORITHMS: Final = {HOME: "intent-classification", AWAY: "intent-classification-torch", FOREIGN: "intent-foreign"}
LABELS: Final = 151
"""Number of best labels that is at least that of any model."""
WITHIN_SECONDS: Final = 0.3
LONG_WITHIN_SECONDS: Final = 1.0
"""Time that no call takes without load: a service that counts this time for its own sees overload."""
DEADLINE_SECONDS: Final = 5.0
"""Deadline of callers whose models are well."""
SHORT_SECONDS: Final = 0.5
CALLERS: Final = 100
LATE_CALLERS: Final = 300
LATE_ANSWERS: Final = 6 * LATE_CALLERS
PAUSE_SECONDS: Final = 0.05


@dataclass
class Engines:
    """Three engines over one volume, by the model with which tests ask them."""

    models: Path
    logs: Path
    services: dict[str, Service]

    def routes(self) -> tuple[str, ...]:
        kinds = {HOME: "predictor", AWAY: "predictor", FOREIGN: "open-inference"}
        routes = (f"{ALGORITHMS[name]}={kind}://{self.services[name].address}" for name, kind in kinds.items())
        return ("--routes", ",".join(routes))

    def start(self, name: str) -> None:
        """Start an engine, at its former address if it had one."""
        # No caller on this machine uses these addresses as its own, so a restarted engine finds its port free.
        host = f"127.0.0.{2 + list(ALGORITHMS).index(name)}"
        former = self.services.get(name)
        port = free_port() if former is None else int(former.address.rpartition(":")[2])
        program = "model_service" if name == FOREIGN else "predictor"
        service = self.services[name] = start(program, self.models, self.logs, "--host", host, port=port)
        service.address = f"{host}:{port}"


@dataclass
class Site:
    """A frontend before the engines."""

    frontend: Service
    metrics: int
    """Port of the frontend's metrics."""
    engines: Engines

    @property
    def models(self) -> Path:
        return self.engines.models

    @contextmanager
    def hung(self, name: str) -> Iterator[None]:
        """Suspend an engine within the block."""
        engine = self.engines.services[name]
        engine.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            engine.signal_all(signal.SIGCONT)
            self.wait_until_answered(name)

    @contextmanager
    def down(self, name: str) -> Iterator[None]:
        """Kill an engine; start it again after the block."""
        self.engines.services[name].kill()
        try:
            yield
        finally:
            self.engines.start(name)
            self.wait_until_answered(name)

    def wait_until_answered(self, name: str) -> None:
        """Wait until the frontend has found an engine again."""
        with IntentClient(self.frontend.address) as client:
            eventually(lambda: is_answered(client, f"strict-{name}"), PATIENCE)

    def in_flight(self) -> float:
        """Return the number of calls that the frontend serves."""
        return Exposition.at(self.metrics).value("intent_requests_in_flight")

    def documents(self, pipeline_id: str, onward: Onward) -> float:
        """Return the number of documents that went on so after the step ``a``."""
        told = Exposition.at(self.metrics)
        return told.value("intent_pipeline_step_documents_total", model=pipeline_id, step="a", onward=onward)


def refusal_of(client: IntentClient, model_id: str) -> ServingError | None:
    """Return the error of a question to the model; ``None`` if the question is answered."""
    try:
        client.predict(model_id, DOCUMENT)
    except ServingError as error:
        return error
    return None


def is_answered(client: IntentClient, model_id: str) -> bool:
    return refusal_of(client, model_id) is None


def is_unusable(client: IntentClient, model_id: str) -> bool:
    return isinstance(refusal_of(client, model_id), ModelUnusable)


def pipeline(models: Path, model_id: str, **steps: Mapping[str, Any]) -> None:
    """Put a pipeline, or another definition of it, into the volume; the first of ``steps`` is its start."""
    publish(models, model_id, files={}, Algorithm="pipeline", classes={}, Start=next(iter(steps)), Steps=steps)


def put_copies(models: Path, sample: str) -> None:
    """Put a sample model below ``models`` once more for each of the other engines."""
    manifest = json.loads((models / sample / "manifest.json").read_text())
    away = Path(shutil.copytree(models / sample, models / f"{sample}-away"))
    (away / "manifest.json").write_text(json.dumps(manifest | {"Algorithm": ALGORITHMS[AWAY]}))
    of_answers = {key: manifest[key] for key in ("classes", "Confidence")}
    asked = {"Algorithm": ALGORITHMS[FOREIGN], "OpenInference": {"model": sample}}
    publish(models, f"{sample}-foreign", files={}, **of_answers, **asked)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Two predictors and a server of the Open Inference Protocol, with pipelines over them."""
    folder = tmp_path_factory.mktemp("pipeline-faults")
    models = copy_samples(folder / "models")
    for sample in ("clinc150", "clinc150-banking", "clinc150-kitchen", "clinc150-travel"):
        put_copies(models, sample)
    for engine in ALGORITHMS:
        pipeline(models, f"strict-{engine}", a={"ask": engine})
        pipeline(models, f"mild-{engine}", a={"ask": engine, "otherwise": HOME})
        pipeline(models, f"strict-timed-{engine}", a={"ask": engine, "within": WITHIN_SECONDS})
        pipeline(models, f"mild-timed-{engine}", a={"ask": engine, "within": WITHIN_SECONDS, "otherwise": HOME})
        pipeline(models, f"long-timed-{engine}", a={"ask": engine, "within": LONG_WITHIN_SECONDS, "otherwise": HOME})
    made = Engines(models, folder, {})
    try:
        for name in ALGORITHMS:
            made.start(name)
        for service in made.services.values():
            service.wait_until_serving()
        yield made
    finally:
        for service in made.services.values():
            service.kill()


@pytest.fixture(scope="module", params=transports())
def site(request: pytest.FixtureRequest, engines: Engines) -> Iterator[Site]:
    """A frontend that has asked every engine before, on each transport."""
    port = free_port()
    flags = (*engines.routes(), "--metrics-port", str(port))
    with running_service("frontend", engines.models, engines.logs, *flags, transport=request.param) as frontend:
        made = Site(frontend, port, engines)
        for name in ALGORITHMS:
            made.wait_until_answered(name)
        yield made


@pytest.fixture
def client(site: Site) -> Iterator[IntentClient]:
    with IntentClient(site.frontend.address, timeout=PATIENCE) as made:
        yield made


def assert_went_on(answer: Prediction, *onward: Onward) -> grpc.StatusCode:
    """Check that the first step went on so and that the other model answered; return the status of the first step."""
    first, last = answer.path
    assert answer.label == LABEL
    # The model without an answer is named as the definition writes it.
    assert (first.name, [model.version for model in first.models], first.next) == ("a", [""], HOME)
    assert first.onward in onward
    assert (last.name, last.label, last.onward) == (HOME, LABEL, Onward.ANSWERED)
    return first.code


# Engines


@pytest.mark.parametrize("engine", [AWAY, FOREIGN])
def test_a_step_whose_engine_is_down_goes_otherwise_or_is_named(site: Site, client: IntentClient, engine: str) -> None:
    mild, strict, timed = f"mild-{engine}", f"strict-{engine}", f"mild-timed-{engine}"
    with site.down(engine):
        for model_id in (mild, timed):
            answer = client.predict(model_id, DOCUMENT)
            assert assert_went_on(answer, Onward.FAILED) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(Unavailable, match=f'^step "a" of {strict}: '):
            client.predict(strict, DOCUMENT)

        went_on, refused, plain = client.predict_batch([Query(model, DOCUMENT) for model in (mild, strict, HOME)])
        assert isinstance(went_on, Prediction)
        assert assert_went_on(went_on, Onward.FAILED) is grpc.StatusCode.UNAVAILABLE
        assert isinstance(refused, Unavailable)
        assert f'step "a" of {strict}: ' in str(refused)
        assert isinstance(plain, Prediction)

    (step,) = client.predict(mild, DOCUMENT).path
    assert (step.models[0].model_id, step.onward) == (engine, Onward.ANSWERED)


def test_a_step_whose_engine_hangs_is_late_and_the_callers_deadline_holds(site: Site, client: IntentClient) -> None:
    mild, strict, timed = f"mild-timed-{FOREIGN}", f"strict-{FOREIGN}", f"strict-timed-{FOREIGN}"
    late = site.documents(mild, Onward.LATE)
    with site.hung(FOREIGN):
        assert assert_went_on(client.predict(mild, DOCUMENT), Onward.LATE) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert site.documents(mild, Onward.LATE) == late + 1
        with pytest.raises(DeadlineExceeded, match=f'^step "a" of {timed} did not answer within '):
            client.predict(timed, DOCUMENT)
        for model_id in (strict, f"mild-{FOREIGN}"):
            # The deadline is the caller's: no time is left for another model.
            with pytest.raises(DeadlineExceeded):
                client.predict(model_id, DOCUMENT, timeout=SHORT_SECONDS)
        went_on, refused, plain = client.predict_batch([Query(model, DOCUMENT) for model in (mild, timed, HOME)])
        assert isinstance(went_on, Prediction)
        assert_went_on(went_on, Onward.LATE)
        assert isinstance(refused, DeadlineExceeded)
        assert isinstance(plain, Prediction)
        eventually(lambda: site.in_flight() == 0)


def test_a_predictor_that_hangs_is_noticed_and_its_steps_fail(site: Site, client: IntentClient) -> None:
    with site.hung(AWAY):
        # Pings notice the predictor after seconds: until then, its steps are late.
        assert_went_on(client.predict(f"mild-timed-{AWAY}", DOCUMENT), Onward.LATE, Onward.FAILED)
        answer = client.predict(f"mild-{AWAY}", DOCUMENT)
        assert assert_went_on(answer, Onward.FAILED) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(Unavailable, match=f'^step "a" of strict-{AWAY}: '):
            client.predict(f"strict-{AWAY}", DOCUMENT)


async def test_while_pipelines_wait_for_an_engine_that_hangs_all_others_are_answered(site: Site) -> None:
    others = (HOME, AWAY, f"strict-{HOME}", f"mild-{AWAY}")
    async with AsyncIntentClient(site.frontend.address, timeout=10 * PATIENCE) as client:
        with site.hung(FOREIGN):
            waiting = [asyncio.ensure_future(client.predict(f"strict-{FOREIGN}", DOCUMENT)) for _ in range(CALLERS)]
            await becomes(lambda: site.in_flight() >= CALLERS)
            for _ in range(10):
                asked = (client.predict(model, DOCUMENT, timeout=DEADLINE_SECONDS) for model in others * 10)
                assert {answer.label for answer in await asyncio.gather(*asked)} == {LABEL}
            assert not any(each.done() for each in waiting)

            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await becomes(lambda: site.in_flight() == 0)


async def test_steps_that_are_late_again_and_again_are_not_taken_for_overload(site: Site) -> None:
    late: list[Prediction] = []
    async with AsyncIntentClient(site.frontend.address, timeout=DEADLINE_SECONDS) as client:

        async def caller() -> None:
            while len(late) < LATE_ANSWERS:
                late.append(await client.predict(f"long-timed-{FOREIGN}", DOCUMENT))

        with site.hung(FOREIGN):
            callers = asyncio.gather(*(caller() for _ in range(LATE_CALLERS)))
            while not callers.done():
                assert (await client.predict(HOME, DOCUMENT)).label == LABEL
                await asyncio.sleep(PAUSE_SECONDS)
            await callers
    for answer in late:
        assert_went_on(answer, Onward.LATE)


# Callers who leave


def cancels(ask: Callable[[float], Any], is_waiting: Callable[[], bool]) -> grpc.StatusCode:
    call = ask(PATIENCE)
    eventually(is_waiting)
    call.cancel()
    code: grpc.StatusCode = call.code()
    return code


def times_out(ask: Callable[[float], Any], is_waiting: Callable[[], bool]) -> grpc.StatusCode:
    del is_waiting
    code: grpc.StatusCode = ask(SHORT_SECONDS).code()
    return code


LEAVING: Final = [(cancels, grpc.StatusCode.CANCELLED), (times_out, grpc.StatusCode.DEADLINE_EXCEEDED)]


@pytest.mark.parametrize("transport", transports())
def test_a_caller_who_leaves_frees_its_slots_in_the_quotas_of_pipeline_and_model(
    engines: Engines, tmp_path: Path, transport: str
) -> None:
    strict = f"strict-{FOREIGN}"
    port = free_port()
    flags = (*engines.routes(), "--metrics-port", str(port), "--tenant-in-flight", "1")
    with (
        running_service("frontend", engines.models, tmp_path, *flags, transport=transport) as frontend,
        IntentClient(frontend.address, timeout=SHORT_SECONDS) as client,
        grpc.insecure_channel(frontend.address) as channel,
    ):
        site = Site(frontend, port, engines)
        site.wait_until_answered(FOREIGN)
        with site.hung(FOREIGN):

            def both_are_taken() -> bool:
                # A question that comes first would take the slot.
                if not site.in_flight():
                    return False
                for model_id in (FOREIGN, strict):
                    with pytest.raises(OutOfCapacity):
                        client.predict(model_id, DOCUMENT)
                return True

            for leave, status in LEAVING:
                assert leave(lambda seconds: ask_frontend(channel, strict, seconds), both_are_taken) is status
                eventually(lambda: site.in_flight() == 0)
                for model_id in (FOREIGN, strict):
                    with pytest.raises(DeadlineExceeded):
                        client.predict(model_id, DOCUMENT)
                    eventually(lambda: site.in_flight() == 0)


@pytest.mark.parametrize("transport", transports())
def test_a_caller_who_leaves_withdraws_the_question_at_the_predictor(
    volume: Path, tmp_path: Path, transport: str
) -> None:
    for name in ("resident", "cold"):
        shutil.copytree(SAMPLE, volume / name)
    pipeline(volume, "strict", a={"ask": "cold"})
    pipeline(volume, "timed", a={"ask": "cold", "within": WITHIN_SECONDS})
    flags = ("--preload", "resident", "--max-in-flight", "1")
    with (
        stack_over_fake_volume(volume, tmp_path, *flags, transport=transport) as (both, fake),
        grpc.insecure_channel(both.frontend.address) as channel,
        IntentClient(both.frontend.address, timeout=PATIENCE) as client,
    ):
        fake.hold("cold")
        leaving = ask_frontend(channel, "strict")
        held = fake.wait_until_held("cold")
        assert is_refused(client)
        leaving.cancel()
        assert leaving.code() is grpc.StatusCode.CANCELLED
        assert is_admitted_soon(client)

        assert ask_frontend(channel, "strict", SHORT_SECONDS).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert is_admitted_soon(client)

        with pytest.raises(DeadlineExceeded, match='step "a" of timed did not answer within '):
            client.predict("timed", DOCUMENT)
        assert is_admitted_soon(client)

        held.release()
        eventually(lambda: "cold" in resident_ids(both))
        assert client.predict("strict", DOCUMENT).label == LABEL
        assert {model.leases for model in ask_residency(both.predictor.address).models} == {0}


async def test_a_step_whose_model_loads_slowly_goes_otherwise_and_nobody_else_waits(
    volume: Path, tmp_path: Path
) -> None:
    for name in (HOME, "cold"):
        shutil.copytree(SAMPLE, volume / name)
    pipeline(volume, "timed", a={"ask": "cold", "within": WITHIN_SECONDS, "otherwise": HOME})
    pipeline(volume, "strict", a={"ask": "cold"})
    with stack_over_fake_volume(volume, tmp_path, "--preload", HOME) as (both, fake):
        async with AsyncIntentClient(both.frontend.address, timeout=PATIENCE) as client:
            fake.hold("cold")
            staying = asyncio.ensure_future(client.predict("strict", DOCUMENT))
            held = await asyncio.to_thread(fake.wait_until_held, "cold")
            late = [client.predict("timed", DOCUMENT) for _ in range(CALLERS)]
            plain = [client.predict(HOME, DOCUMENT, timeout=DEADLINE_SECONDS) for _ in range(CALLERS)]
            answers = await asyncio.gather(*late, *plain)
            for answer in answers[:CALLERS]:
                assert_went_on(answer, Onward.LATE)
            assert {answer.label for answer in answers[CALLERS:]} == {LABEL}

            held.release()
            assert (await staying).label == LABEL
            (step,) = (await client.predict("timed", DOCUMENT)).path
    assert (step.models[0].model_id, step.onward) == ("cold", Onward.ANSWERED)


# Models and pipelines that change


def is_passed_by(client: IntentClient, model_id: str) -> bool:
    """Return whether a step of a pipeline that the model asks has failed, and another model answered."""
    (step,) = client.predict(model_id, DOCUMENT).path
    return any(inner.onward is Onward.FAILED for inner in flat(step.path))


def flat(path: Sequence[PathStep]) -> Iterator[PathStep]:
    """Yield the steps of a path and of the paths within."""
    for step in path:
        yield step
        yield from flat(step.path)


def delete(site: Site, model_id: str) -> None:
    with ManagementClient(site.frontend.address, timeout=PATIENCE) as client:
        client.delete(model_id, force=True)


def remove(site: Site, model_id: str) -> None:
    shutil.rmtree(site.models / model_id)


@pytest.mark.parametrize("away", [delete, remove])
def test_a_model_that_is_gone_is_named_with_its_step_or_passed_by_until_it_is_back(
    site: Site, client: IntentClient, away: Callable[[Site, str], None]
) -> None:
    pipeline(site.models, "strict-doomed", a={"ask": "doomed"})
    pipeline(site.models, "mild-doomed", a={"ask": "doomed", "otherwise": HOME})
    pipeline(site.models, "vote-doomed", a={"ask": [HOME, "doomed"], "vote": "mean", "otherwise": HOME})
    doomed = parse_model_id("doomed")
    for _ in range(2):
        put_model(SAMPLE, site.models, doomed)
        eventually(lambda: is_answered(client, "strict-doomed"))
        for model_id in ("strict-doomed", "mild-doomed", "vote-doomed"):
            (step,) = client.predict(model_id, DOCUMENT).path
            assert (step.models[-1].model_id, step.label, step.onward) == ("doomed", LABEL, Onward.ANSWERED)

        away(site, doomed)

        eventually(lambda: is_unusable(client, "strict-doomed"))
        assert str(refusal_of(client, "strict-doomed")).startswith('step "a" of strict-doomed: no model has the runId')
        for model_id in ("mild-doomed", "vote-doomed"):
            answer = client.predict(model_id, DOCUMENT)
            assert assert_went_on(answer, Onward.FAILED) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("back", ["outer", "inner", "mild-outer"])
def test_pipelines_that_come_to_lead_in_a_circle_are_refused_with_their_names(
    site: Site, client: IntentClient, back: str
) -> None:
    pipeline(site.models, "inner", a={"ask": HOME})
    pipeline(site.models, "outer", a={"ask": "inner"})
    pipeline(site.models, "mild-outer", a={"ask": "inner", "otherwise": HOME})
    for model_id in ("outer", "mild-outer"):
        (step,) = client.predict(model_id, DOCUMENT).path
        assert [inner.name for inner in step.path] == ["a"]

    pipeline(site.models, "inner", a={"ask": back})
    if back == "mild-outer":
        # The circle ends where a pipeline of it may go on.
        eventually(lambda: is_passed_by(client, "outer"))
        assert client.predict("outer", DOCUMENT).label == LABEL
    else:
        eventually(lambda: is_unusable(client, "outer"))
        told = str(refusal_of(client, "outer"))
        assert told.startswith('step "a" of outer: step "a" of inner: ')
        assert f"outer -> inner -> {back}" in told
        answer = client.predict("mild-outer", DOCUMENT)
        assert assert_went_on(answer, Onward.FAILED) is grpc.StatusCode.FAILED_PRECONDITION
        assert site.in_flight() == 0

    pipeline(site.models, "inner", a={"ask": HOME})
    eventually(lambda: is_answered(client, "outer"))


# Answers over several engines


SEVERAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "small": {
        "ask": "clinc150-banking-away",
        "route": {"balance": "two", "transfer": "two", "bill_due": "clinc150-foreign", "pay_bill": "clinc150"},
        "otherwise": "three",
    },
    "two": {"ask": ["clinc150", "clinc150-banking-away"], "vote": "mean"},
    "three": {
        "ask": ["clinc150", "clinc150-travel-away", "clinc150-kitchen-foreign"],
        "vote": "majority",
        "otherwise": "clinc150-foreign",
    },
}
ROWS: Final = slice(0, None, 15)
"""Rows of the test split that are asked."""


class ByHand:
    """Answers to documents by the models themselves, and the votes over them."""

    def __init__(self, client: IntentClient, documents: Sequence[str]) -> None:
        self._answers = {model: self._ask(client, model, documents) for model in self._models()}

    def answer(self, number: int) -> tuple[list[tuple[str, Onward]], str, float]:
        """Return the steps that a document takes through the pipeline, the label, and its score."""
        answers = {model: outcomes[number] for model, outcomes in self._answers.items()}
        small = answers["clinc150-banking-away"]
        route: Mapping[str, str] = SEVERAL["small"]["route"]
        fell_back = small.fallback is not None
        target = "three" if fell_back else route.get(small.label, "three")
        onward = Onward.FELL_BACK if fell_back else Onward.ROUTED if small.label in route else Onward.NO_ROUTE
        way = [("small", onward)]
        if target == "two":
            return [*way, ("two", Onward.ANSWERED)], *self._mean([answers[model] for model in SEVERAL["two"]["ask"]])
        if target == "three":
            elected = self._majority([answers[model] for model in SEVERAL["three"]["ask"]])
            if elected is not None:
                return [*way, ("three", Onward.ANSWERED)], *elected
            way.append(("three", Onward.FELL_BACK))
            target = SEVERAL["three"]["otherwise"]
        return [*way, (target, Onward.ANSWERED)], answers[target].label, answers[target].score

    @staticmethod
    def _models() -> set[str]:
        asked = [step["ask"] for step in SEVERAL.values()]
        named = [[one] if isinstance(one, str) else one for one in asked]
        return {model for models in named for model in models} | {"clinc150-foreign"}

    @staticmethod
    def _ask(client: IntentClient, model: str, documents: Sequence[str]) -> list[Prediction]:
        outcomes = client.predict_batch([Query(model, document, k=LABELS) for document in documents])
        answers = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
        assert len(answers) == len(documents)
        return answers

    @staticmethod
    def _mean(answers: Sequence[Prediction]) -> tuple[str, float]:
        """Return the label of the highest mean; the label of the first model that fell back if most fell back."""
        sums: dict[str, float] = defaultdict(float)
        for answer in answers:
            for label, score in answer.best:
                sums[label] += score / len(answers)
        fallen = [answer for answer in answers if answer.fallback is not None]
        if len(fallen) > len(answers) / 2:
            return fallen[0].label, fallen[0].score
        label = max(sums, key=lambda each: sums[each])
        return label, sums[label]

    @staticmethod
    def _majority(answers: Sequence[Prediction]) -> tuple[str, float] | None:
        scores: dict[str, list[float]] = defaultdict(list)
        for answer in answers:
            if answer.fallback is None:
                scores[answer.label].append(answer.score)
        elected = [label for label, votes in scores.items() if len(votes) > len(answers) / 2]
        return (elected[0], sum(scores[elected[0]]) / len(scores[elected[0]])) if elected else None


def test_steps_and_votes_over_three_engines_answer_as_asking_by_hand_does(
    site: Site, client: IntentClient, figure: Callable[[str], None]
) -> None:
    documents = [row.text for row in read_data(shared("datasets/clinc150/data_full.json")).test[ROWS]]
    pipeline(site.models, "several", **SEVERAL)
    by_hand = ByHand(client, documents)
    outcomes = client.predict_batch([Query("several", document) for document in documents])
    singles = [client.predict("several", document) for document in documents[:10]]
    ways = set()
    for number, outcome in enumerate([*outcomes, *singles]):
        assert isinstance(outcome, Prediction)
        way, label, score = by_hand.answer(number % len(documents))
        assert [(step.name, step.onward) for step in outcome.path] == way
        assert (outcome.model_id, outcome.label) == ("several", label)
        assert outcome.score == pytest.approx(score, abs=1e-5)
        ways.add(tuple(way))
    figure(f"steps over three engines: {len(documents)} documents as by hand, on {len(ways)} ways")
    assert {way[-1][0] for way in ways} == {"two", "three", "clinc150", "clinc150-foreign"}
