"""A frontend with a real TorchServe that is restarted, shared with others, locked, and given archives that fail."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from intentctl.torchserve.archive import MAR_MANIFEST, mar_manifest, write_archive
from peers.environments import CannotInstall
from peers.programs import Program
from peers.torchserve import TorchServe, torchserve
from serving.client import AsyncIntentClient, IntentClient, Query
from serving.domain.errors import ModelUnusable, OutOfCapacity, Unavailable
from serving.stubs import torchserve_management_pb2 as management
from serving.stubs import torchserve_management_pb2_grpc as management_grpc
from tests.builders import PATIENCE, publish
from tests.end_to_end.engines.engines import HOST
from tests.end_to_end.processes import Service, running_service

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.xdist_group("torchserve_faults"),  # one worker starts the shared server
    pytest.mark.timeout(1800),  # the first run installs the peer's environment
]

ALGORITHM = "intent-classification-torch"
CALLERS = 64
READY_SECONDS = 4 * PATIENCE

_HANDLER = """
import os
import time


class Handler:
    def initialize(self, context):
        if {broken}:
            raise ValueError("no good")

    def handle(self, data, context):
        answers = []
        for request in data:
            document = bytes(request["data"]).decode()
            if document == "die":
                os._exit(1)
            if document.startswith("wait "):
                time.sleep(float(document.removeprefix("wait ")))
            answers.append("{label} " + document)
        return answers
"""


@dataclass
class Site:
    """A TorchServe with a model store, a volume, and the frontend before them."""

    folder: Path
    server: TorchServe
    frontend: Service = field(init=False)
    programs: ExitStack = field(default_factory=ExitStack)
    program: Program | None = None

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def add(self, model: str, *, label: str | None = None, broken: bool = False) -> None:
        """Publish a model under the one name that the book's pipeline uses; its archive's labels begin with its id."""
        publish(self.models, model, files={}, Algorithm=ALGORITHM, ModelName="intent", ModelVersion="1.0")
        put_archive(self.folder / "store", model, label=label or model, broken=broken)

    def start(self) -> None:
        self.program = self.programs.enter_context(self.server.running())
        self.wait_for(self.registered)

    def stop(self) -> None:
        assert self.program is not None
        self.program.kill()
        self.programs.close()

    def wait_for(self, ask: Callable[[], Any]) -> Any:
        """Return the result of ``ask`` as soon as TorchServe answers."""
        assert self.program is not None
        give_up = time.monotonic() + READY_SECONDS
        while True:
            self.program.check_alive()
            try:
                return ask()
            except (grpc.RpcError, Unavailable, ValueError):  # the file of keys may be half written
                assert time.monotonic() < give_up, self.server.log.read_text()[-5000:]
                time.sleep(0.1)

    @contextmanager
    def managing(self) -> Iterator[Any]:
        with grpc.insecure_channel(self.server.management) as channel:
            yield management_grpc.ManagementAPIsServiceStub(channel)

    def metadata(self) -> Sequence[tuple[str, str]]:
        if not self.server.keys.exists():
            return ()
        return (("authorization", f"Bearer {json.loads(self.server.keys.read_text())['management']['key']}"),)

    def registered(self) -> dict[str, str]:
        """Return the archive of each registered name."""
        with self.managing() as stub:
            request = management.ListModelsRequest(limit=100)
            listed = json.loads(stub.ListModels(request, timeout=PATIENCE, metadata=self.metadata()).msg)
        return {model["modelName"]: model["modelUrl"] for model in listed["models"]}

    def register(self, name: str, model: str) -> None:
        """Register a model, as another client would."""
        request = management.RegisterModelRequest(
            model_name=name, url=f"model-{model}.mar", initial_workers=1, synchronous=True
        )
        with self.managing() as stub:
            stub.RegisterModel(request, timeout=READY_SECONDS)

    def unregister(self, name: str) -> None:
        with self.managing() as stub:
            stub.UnregisterModel(management.UnregisterModelRequest(model_name=name), timeout=PATIENCE)

    def times_loaded(self, model: str) -> int:
        """Return how often TorchServe has registered the model."""
        names = [f"Model {name} loaded." for name in ("intent-1.0", f"intent-1.0@{model}")]
        return sum(self.server.log.read_text().count(name) for name in names)


def put_archive(store: Path, model: str, *, label: str, broken: bool) -> None:
    """Put an archive into a model store atomically."""
    members = {
        "handler.py": _HANDLER.format(label=label, broken=broken).encode(),
        MAR_MANIFEST: mar_manifest(model, "1.0", "handler.py", "handler.py"),
    }
    staged = store / f".{model}"
    staged.write_bytes(write_archive(members))
    staged.replace(store / f"model-{model}.mar")


@contextmanager
def site(folder: Path, *flags: str, token_authorization: bool = False) -> Iterator[Site]:
    """Run the whole site; end it after the block."""
    (folder / "store").mkdir()
    (folder / "models").mkdir()
    try:
        server = torchserve(
            folder / "server",
            folder / "store",
            "--enable-model-api",
            host=HOST,
            token_authorization=token_authorization,
        )
    except CannotInstall as error:
        pytest.skip(str(error))
    made = Site(folder, server)
    with made.programs:
        made.start()
        route = f"{ALGORITHM}=torchserve://{server.address}?management={server.management}"
        key_file = ("--torchserve-key-file", str(server.keys)) if token_authorization else ()
        with running_service("frontend", made.models, folder, "--routes", route, *key_file, *flags) as frontend:
            made.frontend = frontend
            yield made


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, "--torchserve-models", "2") as made:
        yield made


@pytest.fixture
def client(shop: Site) -> Iterator[IntentClient]:
    with IntentClient(shop.frontend.address, timeout=READY_SECONDS) as made:
        yield made


def label(client: IntentClient, model: str, document: str = "x") -> str:
    return client.predict(model, document).label


async def test_one_registration_however_many_ask(shop: Site) -> None:
    shop.add("a")
    async with AsyncIntentClient(shop.frontend.address, timeout=READY_SECONDS) as client:
        answers = await asyncio.gather(*(client.predict("a", str(number)) for number in range(CALLERS)))
    assert [answer.label for answer in answers] == [f"a {number}" for number in range(CALLERS)]
    assert shop.times_loaded("a") == 1
    assert shop.registered() == {"intent-1.0": "model-a.mar"}


def test_models_of_one_name_and_version_stay_apart_whoever_has_the_name(shop: Site, client: IntentClient) -> None:
    shop.add("a")
    shop.add("b")
    assert [label(client, model) for model in "abab"] == ["a x", "b x"] * 2
    assert shop.registered() == {"intent-1.0": "model-a.mar", "intent-1.0@b": "model-b.mar"}

    # Another frontend unregisters the name and registers it for its own model.
    shop.unregister("intent-1.0")
    shop.register("intent-1.0", "b")
    assert [label(client, model) for model in "abab"] == ["a x", "b x"] * 2

    # The same holds if TorchServe restarts with the other model under the name.
    shop.stop()
    with pytest.raises(Unavailable):
        label(client, "a")
    shop.start()
    shop.register("intent-1.0", "b")
    assert shop.wait_for(lambda: label(client, "a")) == "a x"
    outcomes = client.predict_batch([Query("a", "1"), Query("b", "2"), Query("a", "3")])
    assert [getattr(outcome, "label", outcome) for outcome in outcomes] == ["a 1", "b 2", "a 3"]


def test_a_question_is_not_lost_when_somebody_else_unregisters_the_model(shop: Site) -> None:
    async def ask() -> str:
        async with AsyncIntentClient(shop.frontend.address, timeout=READY_SECONDS) as client:
            await client.predict("a", "x")
            # TorchServe never answers this query, because its worker is ended.
            asked = asyncio.create_task(client.predict("a", "wait 3"))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(shop.unregister, "intent-1.0")
            return (await asked).label

    shop.add("a")
    assert asyncio.run(ask()) == "a wait 3"


def test_the_least_recently_used_is_unregistered_and_comes_back(shop: Site, client: IntentClient) -> None:
    for model in "abc":
        shop.add(model)
    assert [label(client, model) for model in "abac"] == ["a x", "b x", "a x", "c x"]
    assert set(shop.registered().values()) == {"model-a.mar", "model-c.mar"}
    assert label(client, "b") == "b x"
    assert set(shop.registered().values()) == {"model-b.mar", "model-c.mar"}


async def test_a_model_in_use_is_not_unregistered(shop: Site) -> None:
    for model in "abc":
        shop.add(model)
    async with AsyncIntentClient(shop.frontend.address, timeout=READY_SECONDS) as client:
        await asyncio.gather(client.predict("a", "x"), client.predict("b", "x"))
        held = [asyncio.create_task(client.predict(model, "wait 5")) for model in "ab"]
        await asyncio.sleep(0.5)
        with pytest.raises(OutOfCapacity):
            await client.predict("c", "x")
        assert [(await answer).label for answer in held] == ["a wait 5", "b wait 5"]
        assert (await client.predict("c", "x")).label == "c x"


def test_archives_that_fail_are_told_and_others_serve_on(shop: Site, client: IntentClient) -> None:
    shop.add("good")
    shop.add("broken", broken=True)
    shop.add("torn")
    archive = shop.folder / "store" / "model-torn.mar"
    archive.write_bytes(archive.read_bytes()[:200])
    assert label(client, "good") == "good x"
    for model in ("broken", "torn"):
        with pytest.raises(ModelUnusable, match="archive"):
            label(client, model)
    assert shop.registered() == {"intent-1.0": "model-good.mar"}
    assert label(client, "good") == "good x"

    for model in ("broken", "torn"):
        shop.add(model)
        give_up = time.monotonic() + READY_SECONDS
        while True:
            try:
                assert label(client, model) == f"{model} x"
                break
            except ModelUnusable:  # the failure is cached for a moment
                assert time.monotonic() < give_up
                time.sleep(0.5)


def test_a_worker_that_ends_is_told_and_started_again(shop: Site, client: IntentClient) -> None:
    shop.add("a")
    assert label(client, "a") == "a x"
    with pytest.raises(Unavailable, match="worker"):
        label(client, "a", "die")
    assert label(client, "a") == "a x"


def test_a_new_archive_serves_once_the_former_is_unregistered(shop: Site, client: IntentClient) -> None:
    shop.add("a")
    assert label(client, "a") == "a x"
    shop.add("a", label="new")
    shop.unregister("intent-1.0")
    assert label(client, "a") == "new x"


def test_keys_are_read_again_when_torchserve_makes_new_ones(tmp_path: Path) -> None:
    with site(tmp_path, token_authorization=True) as shop:
        shop.add("a")
        with IntentClient(shop.frontend.address, timeout=READY_SECONDS) as client:
            assert label(client, "a") == "a x"
            for api in ("inference", "management"):
                renew_key(shop.server, api)
                assert label(client, "a") == "a x"
            shop.stop()
            shop.server.keys.unlink()
            shop.start()
            assert shop.wait_for(lambda: label(client, "a")) == "a x"


def renew_key(server: TorchServe, api: str) -> None:
    """Request a new key from TorchServe, as its operator does."""
    properties = (server.folder / "config.properties").read_text().splitlines()
    (address,) = [line.rpartition("/")[2] for line in properties if line.startswith("management_address=")]
    key = json.loads(server.keys.read_text())["API"]["key"]
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request("GET", f"/token?type={api}", headers={"Authorization": f"Bearer {key}"})
    assert connection.getresponse().status == 200
    connection.close()
