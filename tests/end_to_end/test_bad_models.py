"""Model folders that must not be served: each is refused with its status, nothing executed, the service unharmed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from serving.client import IntentClient
from serving.domain.errors import ServingError
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import reseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack
from tests.end_to_end.test_uploads import eventually, nothing_is_set_aside, resident, told

SAMPLE = ROOT / "models" / "clinc150-banking"
CANARY = "executed"


class RunsACommand:
    """Object whose pickle executes a command if it is loaded without restrictions."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._canary}",)


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def fill_with_garbage(name: str) -> Callable[[Path], None]:
    return write(name, b"\x00garbage\xff" * 999)


def pickle_that_runs_a_command(name: str) -> Callable[[Path], None]:
    return lambda folder: torch.save(RunsACommand(folder / CANARY), folder / name)


def bare_pickle_that_runs_a_command(name: str) -> Callable[[Path], None]:
    return lambda folder: write(name, pickle.dumps(RunsACommand(folder / CANARY)))(folder)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = torch.load(folder / "model.pth", weights_only=True)
        change(state)
        torch.save(state, folder / "model.pth")

    return damage


def one_weight_is(value: float) -> Callable[[Path], None]:
    return weights(lambda state: state["fc1.weight"][0].fill_(value))


def without_a_class(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classes"].pop(str(len(manifest["classes"]) - 1))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def manifest_is(text: str) -> Callable[[Path], None]:
    return write("manifest.json", text.encode())


BAD_MODELS: dict[str, Callable[[Path], None]] = {
    "truncated-weights": truncate("model.pth"),
    "truncated-vocabulary": truncate("vocab.pth"),
    "truncated-manifest": truncate("manifest.json"),
    "garbage-weights": fill_with_garbage("model.pth"),
    "garbage-vocabulary": fill_with_garbage("vocab.pth"),
    "garbage-manifest": fill_with_garbage("manifest.json"),
    "hostile-weights": pickle_that_runs_a_command("model.pth"),
    "hostile-vocabulary": pickle_that_runs_a_command("vocab.pth"),
    "hostile-bare-vocabulary": bare_pickle_that_runs_a_command("vocab.pth"),
    "missing-class": without_a_class,
    "gap-in-layers": weights(lambda state: state.update({"fc9.weight": state.pop("fc1.weight")})),
    "nan-weights": one_weight_is(float("nan")),
    "infinite-weights": one_weight_is(float("inf")),
    "list-as-manifest": manifest_is("[]"),
    "deep-manifest": manifest_is("[" * 100_000),
    "manifest-without-algorithm": manifest_is('{"classes": {"0": "a"}}'),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_a_failed_precondition_and_nothing_of_it_runs(running: Stack, name: str) -> None:
    folder = running.models / f"bad-{name}"
    shutil.copytree(SAMPLE, folder)
    BAD_MODELS[name](folder)
    reseal(folder)

    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError) as refusal:
        client.predict(folder.name, "what is my balance")
    # The frontend refuses some manifests itself; the predictor must not rely on that.
    directly = refusal_of_the_predictor(running, folder.name)

    for code, message in ((refusal.value.code, str(refusal.value)), (directly.code(), directly.details())):
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert_tells_no_internals(message, running)
    assert not (folder / CANARY).exists()
    assert_nothing_is_held_of(running, folder.name)
    if name.startswith("hostile"):
        assert ("error", "forbidden pickle") in told(folder.name, running)


def test_a_model_that_was_bad_is_served_once_it_is_repaired(running: Stack) -> None:
    folder = running.models / "repaired"
    shutil.copytree(SAMPLE, folder)
    BAD_MODELS["nan-weights"](folder)
    with IntentClient(running.frontend.address) as client:
        with pytest.raises(ServingError):
            client.predict(folder.name, "what is my balance")
        shutil.copy(SAMPLE / "model.pth", folder / "model.pth")

        assert client.predict(folder.name, "what is my balance").label == "balance"


def test_bad_models_do_not_disturb_good_ones(running: Stack) -> None:
    with IntentClient(running.frontend.address) as client:
        assert client.predict("clinc150-banking", "what is my balance").label == "balance"


def refusal_of_the_predictor(running: Stack, model_id: str) -> Any:
    request = pb.PredictorPredictRequest(runId=model_id, document="what is my balance")
    with grpc.insecure_channel(running.predictor.address) as channel, pytest.raises(grpc.RpcError) as refusal:
        pb_grpc.PredictorStub(channel).PredictorPredict(request, timeout=30)
    return refusal.value


def assert_nothing_is_held_of(running: Stack, model_id: str) -> None:
    """Check that the model is not in memory and that the memory set aside for it is released."""
    assert resident(model_id, running) is None
    # Other models may be about to be replaced, which sets memory aside for a moment.
    eventually(lambda: nothing_is_set_aside(running))


def assert_tells_no_internals(message: str, running: Stack) -> None:
    assert str(running.models) not in message
    assert "Error" not in message
    assert "Traceback" not in message
