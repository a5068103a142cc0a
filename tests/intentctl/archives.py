"""What the tests of archives share: small models, the commands in front of a folder of models, the archived handler."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from typer.testing import CliRunner, Result

from intentctl.__main__ import app
from predictor.intent_model import IntentModel
from predictor.loader import FileLimits, Loader
from serving.model_id import ModelId
from serving.model_store import ModelStore
from tests.builders import publish
from tests.conftest import shared
from tests.predictor.builders import fake_torchtext, modern_vocab, saved, state_dict

_PROGRAM: Final = Path(__file__).parent / "archived_handler.py"

TOKENS: Final = ("<unk>", "rain", "sun", "song", "band")


def intentctl(*arguments: object) -> Result:
    """Run the command line."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"MODEL_DIR": None})


def small_model(
    root: Path,
    model_id: str,
    *,
    tokens: Sequence[str] = TOKENS,
    default: int | None = 0,
    weights: Mapping[str, torch.Tensor] | None = None,
    **keys: Any,
) -> Path:
    """Put a small sound model of two labels below ``root``; return its folder."""
    state = state_dict(len(tokens), 4, 3, 2) if weights is None else dict(weights)
    with fake_torchtext():
        files = {"model.pth": saved(state), "vocab.pth": saved(modern_vocab(tokens, default))}
    return publish(root, model_id, files=files, **keys)


def loaded(root: Path, model_id: str) -> IntentModel:
    """Return the model as the predictor loads it."""
    loader = Loader(ModelStore(root), FileLimits())
    return loader.load(ModelId(model_id), loader.fingerprint(ModelId(model_id)))


def clinc150_rows() -> list[tuple[str, str]]:
    """Return the 5,500 test rows with their labels."""
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    return [(text, label) for text, label in data["test"] + data["oos_test"]]


def members_of(archive: Path) -> dict[str, bytes]:
    """Return an archive's members by their names."""
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


@dataclass(frozen=True)
class Request:
    """What TorchServe hands its handler of one request."""

    input: Mapping[str, bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What the handler answered to one batch."""

    answers: list[str]
    statuses: dict[str, list[Any]]


def handled(archive: Path, folder: Path, batches: Iterable[Sequence[Request]]) -> list[Reply]:
    """Unpack an archive and let its handler, in a process of its own, answer batches."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    questions = [
        [
            {
                "input": {name: base64.b64encode(value).decode() for name, value in request.input.items()},
                "headers": dict(request.headers),
            }
            for request in batch
        ]
        for batch in batches
    ]
    run = subprocess.run(
        [sys.executable, "-P", _PROGRAM],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["imported"]
    assert all(path.startswith(str(folder)) for path in told["imported"]), told["imported"]
    return [Reply(**reply) for reply in told["replies"]]


def asked(document: str) -> Request:
    """Return the request that asks for the label of one document."""
    return Request({"data": document.encode("utf-8", "surrogatepass")})


def asked_many(questions: Sequence[tuple[str, int]]) -> Request:
    """Return the request that asks for many documents."""
    listed = [{"document": document, "k": k} for document, k in questions]
    return Request({"documents": json.dumps(listed).encode()})
