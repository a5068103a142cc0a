"""Real engines of each kind behind one frontend: started, paused, ended by id, and restarted at the same address."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import torch
from google.protobuf.empty_pb2 import Empty

from peers.environments import CannotInstall
from peers.mlserver import mlserver
from peers.programs import ROOT, Program, free_ports
from peers.servers import Server, our_code
from peers.torchserve import torchserve
from peers.triton import triton
from predictor.model.tokenizer import Tokenizer
from predictor.model.vocabulary import read_vocabulary
from serving.client import IntentClient, Prediction
from serving.domain.errors import Unavailable
from serving.health_check import health_of
from serving.stubs import open_inference_pb2 as oip
from serving.stubs import open_inference_pb2_grpc as oip_grpc
from serving.stubs import torchserve_inference_pb2_grpc as torchserve_grpc
from tests.builders import PATIENCE, reseal
from tests.end_to_end.processes import Service, start
from tests.fakes.torchtext import fake_torchtext, modern_vocab
from tests.predictor.builders import saved

HOST = "127.0.0.2"
"""Address that no caller on this machine uses as its own, so that a restarted engine finds its ports free."""
SAMPLE = "clinc150"
"""Model that every engine serves, under the predictor's id for it."""
DOCUMENT, LABEL = "make a 10 minute timer", "timer"

_TEXTS_WITH_NGRAMS = ("what is the exchange rate", "how do i say thank you in french", "flip a coin for me")
_RUNTIMES = "peers.inside.mlserver_runtimes"
_TRITON_MODEL = ROOT / "peers" / "inside" / "triton_model.py"
_SLOW_TRITON_MODEL = _TRITON_MODEL.with_name("triton_slow_model.py")
_READY_SECONDS = 4 * PATIENCE
_ASK_SECONDS = 5


@dataclass
class Engine:
    """One engine, and its models in the volume."""

    algorithm: str
    address: str
    """Address as a route contains it: ``kind://host:port``."""
    server: Server
    models: tuple[str, ...]
    """Ids that the engine serves, all with the weights of the sample model."""
    absent: str
    """Id with a manifest but without a model in the engine."""
    is_ready: Callable[[], bool]
    """Function that returns whether the engine can answer for all its models; raises if the engine is unreachable."""
    slow: str = ""
    """Id that the engine serves with a model that takes seconds."""
    explains: bool = False
    """Whether the engine explains its answers."""
    _program: Program | None = None
    _ends: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start the engine without waiting for it."""
        self._program = self._ends.enter_context(self.server.running())

    def stop(self) -> None:
        """End the engine at once, as on a lost machine, unless it has ended already."""
        if self._program is not None:
            self._program.kill()
            self._program = None
        self._ends.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the whole engine within the block."""
        assert self._program is not None
        self._program.pause()
        try:
            yield
        finally:
            self._program.resume()

    @contextmanager
    def down(self) -> Iterator[None]:
        """End the engine; restart it after the block, at the end of which it is ready."""
        self.stop()
        try:
            yield
        finally:
            self.start()
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self._program is not None
        give_up = time.monotonic() + _READY_SECONDS
        while not self._says_ready():
            self._program.check_alive()
            assert time.monotonic() < give_up, self.server.log.read_text()[-5000:]
            time.sleep(0.1)

    def _says_ready(self) -> bool:
        try:
            return self.is_ready()
        except grpc.RpcError:
            return False


Maker = Callable[[Path, Path], Engine]
"""Function that returns an engine, not started yet, with its models in the first folder and its files in the second."""


@dataclass
class Fleet:
    """Engines behind one frontend."""

    models: Path
    frontend: Service
    engines: Mapping[str, Engine]
    missing: Mapping[str, str]
    """Reason why an engine is missing, by name."""


@contextmanager
def fleet(folder: Path, makers: Mapping[str, Maker]) -> Iterator[Fleet]:
    """Run engines and a frontend until they are ready; end them after the block."""
    models = folder / "models"
    put_sample_model(models)
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            engines[name] = make(models, folder / name)
        except CannotInstall as error:
            missing[name] = str(error)
    with ExitStack() as ends:
        for engine in engines.values():
            ends.callback(engine.stop)
            engine.start()
        routes = ",".join(f"{engine.algorithm}={engine.address}" for engine in engines.values())
        frontend = start("frontend", models, folder, "--routes", routes)
        ends.callback(frontend.kill)
        frontend.wait_until_serving()
        with IntentClient(frontend.address) as client:
            for engine in engines.values():
                engine.wait_until_ready()
                # The frontend did not wait for slow engines, and may need a moment to find them.
                for model in engine.models:
                    answer_when_reached(client, model)
        yield Fleet(models, frontend, engines, missing)


def put_sample_model(models: Path) -> None:
    """Put the sample model below ``models``, with n-grams, a temperature and a threshold."""
    folder = shutil.copytree(ROOT / "models" / SAMPLE, models / SAMPLE)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("Files", None)
    manifest["Tokenizer"] += "+words:2+characters:3-4"
    _add_ngrams(folder, Tokenizer.parse(manifest["Tokenizer"]))
    manifest["Confidence"] = {"temperature": 0.5, "threshold": 0.6}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    reseal(folder)


def _add_ngrams(folder: Path, tokenizer: Tokenizer) -> None:
    """Add small weights for some n-grams to a model: its answers change a little and are nearly as good."""
    vocabulary = read_vocabulary((folder / "vocab.pth").read_bytes())
    state = torch.load(folder / "model.pth", weights_only=True)
    ngrams = itertools.chain.from_iterable(tokenizer.ngrams(tokenizer.tokens(text)) for text in _TEXTS_WITH_NGRAMS)
    tokens = [*dict.fromkeys([*vocabulary.tokens, *ngrams])]
    rows = state["embedding.weight"]
    added = torch.randn(len(tokens) - len(rows), rows.shape[1], generator=torch.Generator().manual_seed(7))
    state["embedding.weight"] = torch.cat([rows, added * rows.std() / 4])
    with fake_torchtext():
        (folder / "vocab.pth").write_bytes(saved(modern_vocab(tokens, vocabulary.default_index)))
    (folder / "model.pth").write_bytes(saved(state))


def answer_when_reached(client: IntentClient, model: str) -> Prediction:
    """Return the first answer of a ready engine: the frontend looks for the engine at most once a second."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            return client.predict(model, DOCUMENT, timeout=PATIENCE)
        except Unavailable:
            continue
    raise AssertionError("the engine was not found")


def predictor_engine(models: Path, folder: Path) -> Engine:
    """Return our predictor."""
    folder.mkdir()
    _write_manifest(models, "absent", Algorithm="intent-classification")
    (port,) = free_ports(1, HOST)
    address = f"{HOST}:{port}"
    command = (sys.executable, "-m", "predictor", "--model-dir", models, "--host", HOST, "--port", str(port))
    return Engine(
        algorithm="intent-classification",
        address=f"predictor://{address}",
        server=Server(address, command, folder / "predictor.log", ROOT),
        models=(SAMPLE,),
        absent="absent",
        explains=True,
        is_ready=lambda: health_of(address, "", _ASK_SECONDS) == "SERVING",
    )


def torchserve_engine(models: Path, folder: Path) -> Engine:
    """Return TorchServe with an archive that ``intentctl export`` has made, and no registered model."""
    algorithm, model = "intent-classification-torch", "clinc150-torch"
    store = folder / "store"
    store.mkdir(parents=True)
    server = torchserve(folder, store, "--enable-model-api", host=HOST)
    export = (sys.executable, "-m", "intentctl", "export", "--torchserve", SAMPLE, "--publish-as", model)
    subprocess.run([*export, "--model-store", store, "--model-dir", models], check=True, cwd=ROOT)
    _write_manifest(models, "absent-torch", Algorithm=algorithm)

    def is_healthy() -> bool:
        with grpc.insecure_channel(server.address) as channel:
            stub = torchserve_grpc.InferenceAPIsServiceStub(channel)
            return "Healthy" in stub.Ping(Empty(), timeout=_ASK_SECONDS).health

    return Engine(
        algorithm=algorithm,
        address=f"torchserve://{server.address}?management={server.management}",
        server=server,
        models=(model,),
        absent="absent-torch",
        explains=True,
        is_ready=is_healthy,
    )


def mlserver_engine(models: Path, folder: Path) -> Engine:
    """Return MLServer with the sample model in two forms: one answers with labels, one with logits."""
    batching = {"max_batch_size": 64, "max_batch_time": 0.001}
    forms: dict[str, dict[str, Any]] = {
        "labels": {"implementation": f"{_RUNTIMES}.LabelRuntime", **batching},
        "logits": {"implementation": f"{_RUNTIMES}.LogitsRuntime", **batching},
        "slow": {"implementation": f"{_RUNTIMES}.SlowRuntime"},
    }
    server = mlserver(folder, forms, our_code(models, SAMPLE), host=HOST)
    return _open_inference_engine(models, "intent-mlserver", server, shape=[-1])


def triton_engine(models: Path, folder: Path) -> Engine:
    """Return Triton with the sample model in the same two forms."""
    label, score, logits = ("TYPE_STRING", 1), ("TYPE_FP32", 1), ("TYPE_FP32", 151)
    forms = {
        "labels": (_triton_configuration("labels", label=label, score=score), _TRITON_MODEL),
        "logits": (_triton_configuration("logits", logits=logits), _TRITON_MODEL),
        "slow": (_triton_configuration("slow", label=label), _SLOW_TRITON_MODEL),
    }
    server = triton(folder, forms, our_code(models, SAMPLE), host=HOST)
    return _open_inference_engine(models, "intent-triton", server)


def _open_inference_engine(models: Path, algorithm: str, server: Server, **of_logits: Any) -> Engine:
    """Return an engine with the sample model as ``labels`` and as ``logits``; ``of_logits`` adds keys to the latter.

    The engine also has a model ``slow``.
    """
    served = {
        f"{algorithm}-labels": {"model": "labels", "label": "label", "score": "score"},
        f"{algorithm}-logits": {"model": "logits", "logits": "logits", "contents": "typed", **of_logits},
    }
    for model, open_inference in served.items():
        _write_manifest(models, model, Algorithm=algorithm, OpenInference=open_inference)
    slow = f"{algorithm}-slow"
    of_slow = {"model": "slow", "label": "label"}
    # The slow model reports no scores, so it can have no threshold.
    _write_manifest(models, slow, Algorithm=algorithm, OpenInference=of_slow, Confidence={})
    absent = f"{algorithm}-absent"
    _write_manifest(models, absent, Algorithm=algorithm, OpenInference={"model": "nothing"})

    def has_all() -> bool:
        with grpc.insecure_channel(server.address) as channel:
            stub = oip_grpc.GRPCInferenceServiceStub(channel)
            asked = [oip.ModelReadyRequest(name=name) for name in ("labels", "logits", "slow")]
            return all(stub.ModelReady(one, timeout=_ASK_SECONDS).ready for one in asked)

    return Engine(
        algorithm=algorithm,
        address=f"open-inference://{server.address}",
        server=server,
        models=tuple(served),
        absent=absent,
        is_ready=has_all,
        slow=slow,
    )


def _write_manifest(models: Path, model_id: str, **keys: Any) -> None:
    """Write a manifest and no other file; its outputs are described as in the manifest of the sample model."""
    sample = json.loads((models / SAMPLE / "manifest.json").read_text())
    of_outputs = {key: sample[key] for key in ("classes", "Confidence")}
    (models / model_id).mkdir()
    (models / model_id / "manifest.json").write_text(json.dumps(of_outputs | keys))


def _triton_configuration(name: str, **outputs: tuple[str, int]) -> str:
    listed = ", ".join(
        f'{{ name: "{output}" data_type: {kind} dims: [ {width} ] }}' for output, (kind, width) in outputs.items()
    )
    return f"""name: "{name}"
backend: "python"
max_batch_size: 64
input [ {{ name: "document" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {listed} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""
