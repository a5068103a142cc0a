"""Archives of ``intentctl export`` in a real TorchServe, queried as any client of TorchServe queries it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from peers.environments import CannotInstall
from peers.programs import Program
from peers.torchserve import TorchServe, torchserve
from serving.domain.prediction import Prediction, Query
from serving.stubs import torchserve_inference_pb2 as inference
from serving.stubs import torchserve_inference_pb2_grpc as inference_grpc
from serving.stubs import torchserve_management_pb2 as management
from serving.stubs import torchserve_management_pb2_grpc as management_grpc
from tests.builders import PATIENCE
from tests.conftest import ROOT, shared
from tests.intentctl.archives import clinc150_rows, intentctl, loaded

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.xdist_group("exported_models"),  # one worker starts the shared server
    pytest.mark.timeout(1800),  # the first run installs the peer's environment
]

MODELS = ("1", "clinc150")
TIMER = "make a 10 minute timer"
BATCH = 64
READY_SECONDS = 4 * PATIENCE


@dataclass(frozen=True)
class Served:
    """A TorchServe with the exported models, and the volume that they were exported from."""

    server: TorchServe
    models: Path
    predictions: Any
    management: Any

    def predict(self, model: str, **inputs: bytes) -> Any:
        """Send a query without waiting for its answer."""
        request = inference.PredictionsRequest(model_name=name_of(model), input=inputs)
        return self.predictions.Predictions.future(request, timeout=PATIENCE)

    def answers(self, model: str, requests: Sequence[Mapping[str, bytes]]) -> list[Any]:
        """Return the answers to requests that TorchServe batches."""
        return [
            json.loads(call.result().prediction)
            # TorchServe refuses further requests while a hundred are waiting.
            for begin in range(0, len(requests), BATCH)
            for call in [self.predict(model, **inputs) for inputs in requests[begin : begin + BATCH]]
        ]

    def described(self, model: str) -> Any:
        """Return TorchServe's description of a model, including that of its handler."""
        request = management.DescribeModelRequest(model_name=name_of(model), customized=True)
        (description,) = json.loads(self.management.DescribeModel(request, timeout=PATIENCE).msg)
        return description

    def workers(self, model: str) -> list[tuple[str, int]]:
        """Return the state and the process id of each worker of a model."""
        return [(worker["status"], worker["pid"]) for worker in self.described(model)["workers"]]


def name_of(model: str) -> str:
    return f"{model}-1.0"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("torchserve")
    models, store = folder / "models", folder / "store"
    store.mkdir()
    shutil.copytree(shared("seed-model/1"), models / "1")
    shutil.copytree(ROOT / "models" / "clinc150", models / "clinc150")
    for model in MODELS:
        exported = intentctl("export", "--torchserve", model, "--model-dir", models, "--model-store", store)
        assert exported.exit_code == 0, exported.stderr
    try:
        server = torchserve(folder / "server", store, "--enable-model-api")
    except CannotInstall as error:
        pytest.skip(str(error))
    with (
        server.running() as program,
        grpc.insecure_channel(server.address) as asking,
        grpc.insecure_channel(server.management) as managing,
    ):
        running = Served(
            server,
            models,
            inference_grpc.InferenceAPIsServiceStub(asking),
            management_grpc.ManagementAPIsServiceStub(managing),
        )
        wait_until_healthy(running, program)
        for model in MODELS:
            register(running, model, model)
        yield running


def wait_until_healthy(served: Served, program: Program) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        program.check_alive()
        try:
            if "Healthy" in served.predictions.Ping(Empty(), timeout=PATIENCE).health:
                return
        except grpc.RpcError:
            assert time.monotonic() < give_up, served.server.log.read_text()[-5000:]
            time.sleep(0.1)


def register(
    served: Served, exported: str, model: str, *, batch: int = BATCH, milliseconds_to_fill_it: int = 1
) -> None:
    """Register the archive of the model ``exported`` as ``model``."""
    request = management.RegisterModelRequest(
        url=f"model-{exported}.mar",
        model_name=name_of(model),
        initial_workers=1,
        synchronous=True,
        batch_size=batch,
        max_batch_delay=milliseconds_to_fill_it,
        response_timeout=int(PATIENCE),
    )
    served.management.RegisterModel(request, timeout=READY_SECONDS)


@pytest.mark.parametrize("model", MODELS)
def test_all_clinc150_test_rows_have_the_predictors_labels(
    served: Served, model: str, figure: Callable[[str], None]
) -> None:
    rows = clinc150_rows()
    documents = [document for document, _ in rows]
    expected = loaded(served.models, model).predict([Query(model, document, 1) for document in documents])

    alone = served.answers(model, [{"data": document.encode()} for document in documents])
    chunks = [documents[begin : begin + 500] for begin in range(0, len(documents), 500)]
    lists = [[{"document": document, "k": 1} for document in chunk] for chunk in chunks]
    together = served.answers(model, [{"documents": json.dumps(listed).encode()} for listed in lists])

    answers = [outcome for outcome in expected if isinstance(outcome, Prediction)]
    labels = [answer.label for answer in answers]
    right = sum(answer["result"] == label for answer, (_, label) in zip(alone, rows, strict=True))
    figure(f"right answers of TorchServe for {model}: {right} of {len(rows)}")
    assert [answer["result"] for answer in alone] == labels
    results = list(itertools.chain.from_iterable(answer["results"] for answer in together))
    assert [result["result"] for result in results] == labels
    assert [result["best"][0][0] for result in results] == [answer.best[0].label for answer in answers]
    if model == "1":
        assert right == 2465


@pytest.mark.parametrize("model", MODELS)
def test_the_answer_is_the_seeds_to_the_byte(served: Served, model: str) -> None:
    assert served.predict(model, data=TIMER.encode()).result().prediction == b'{"result": "timer"}'


def test_a_bad_request_fails_alone_in_its_batch(served: Served) -> None:
    wrong: list[dict[str, bytes]] = [{"data": b"\xff"}, {"documents": b"["}, {}]
    requests = [request for bad in wrong * 8 for request in (bad, {"data": TIMER.encode()})]
    register(served, "clinc150", "full", batch=len(requests), milliseconds_to_fill_it=int(PATIENCE * 1000))

    answers = served.answers("full", requests)

    assert answers[1::2] == [{"result": "timer"}] * 24
    assert {(answer["code"], answer["type"]) for answer in answers[::2]} == {(400, "PredictionException")}
    # The handler received all of them at once.
    lines = served.server.log.read_text().splitlines()
    assert sum(name_of("full") in line and "Flushing req.cmd PREDICT" in line for line in lines) == 1


def test_answers_that_are_too_long_are_refused_and_the_worker_lives(served: Served) -> None:
    workers = served.workers("clinc150")
    # The scores of all labels for 2,000 documents are twice as long as TorchServe accepts from a worker.
    many, more = ([{"document": TIMER, "k": 151}] * count for count in (600, 2000))
    asked = [{"documents": json.dumps(documents).encode()} for documents in (more, many)]
    too_long, answered = served.answers("clinc150", asked)

    assert (too_long["code"], too_long["type"]) == (413, "PredictionException")
    assert len(answered["results"]) == 600
    assert served.workers("clinc150") == workers


def test_over_http_a_bad_request_has_its_status(served: Served) -> None:
    lines = (served.server.folder / "config.properties").read_text().splitlines()
    address = dict(line.split("=", 1) for line in lines)["inference_address"].removeprefix("http://")

    assert posted(address, TIMER.encode()) == (200, {"result": "timer"})
    status, refusal = posted(address, b"\xff")
    assert (status, refusal["code"]) == (400, 400)


def posted(address: str, body: bytes) -> tuple[int, Any]:
    """Return the status and the answer of a prediction over HTTP."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", f"/predictions/{name_of('clinc150')}", body, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_model_tells_that_its_handler_takes_many_documents(served: Served) -> None:
    assert served.described("clinc150")["customizedMetadata"] == {"documents": True, "labels": 151}
