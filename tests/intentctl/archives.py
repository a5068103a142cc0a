"""Helpers of the tests of archives: small models, the command line, and workers for archived handlers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from typer.testing import CliRunner, Result

from intentctl.__main__ import app
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from tests.builders import publish
from tests.conftest import shared
from tests.fakes.torchtext import fake_torchtext, modern_vocab
from tests.predictor.builders import saved, state_dict

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
    """Publish a small valid model with two labels below ``root``; return its folder."""
    state = state_dict(len(tokens), 4, 3, 2) if weights is None else dict(weights)
    with fake_torchtext():
        files = {"model.pth": saved(state), "vocab.pth": saved(modern_vocab(tokens, default))}
    return publish(root, model_id, files=files, **keys)


def loaded(root: Path, model_id: str) -> IntentModel:
    """Return the model as the predictor loads it."""
    loader = Loader(ModelStore(root), FileLimits())
    return loader.load(ModelId(model_id), loader.fingerprint(ModelId(model_id)))


def clinc150_rows() -> list[tuple[str, str]]:
    """Return the 5,500 test rows of CLINC150 with their labels."""
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    return [(text, label) for text, label in data["test"] + data["oos_test"]]


def members_of(archive: Path) -> dict[str, bytes]:
    """Return the members of an archive by name."""
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


@dataclass(frozen=True)
class Request:
    """One request as TorchServe passes it to a handler."""

    input: Mapping[str, bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """Reply of the handler to one batch."""

    answers: list[str]
    statuses: dict[str, list[Any]]


class Workers:
    """Processes that serve archives as TorchServe's workers do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def handled(self, archive: Path, batches: Iterable[Sequence[Request]]) -> list[Reply]:
        """Unpack an archive, and return the reply of its handler to each batch."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with TemporaryDirectory() as folder:
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
            questions = [[_encoded(request) for request in batch] for batch in batches]
            self._process.stdin.write(json.dumps({"folder": folder, "batches": questions}) + "\n")
            self._process.stdin.flush()
            told = json.loads(self._process.stdout.readline())
            assert "failure" not in told, told["failure"]
            assert len(told["imported"]) >= 2
            assert all(path.startswith(folder) for path in told["imported"]), told["imported"]
        return [Reply(**reply) for reply in told["replies"]]


def _encoded(request: Request) -> dict[str, Any]:
    values = {name: base64.b64encode(value).decode() for name, value in request.input.items()}
    return {"input": values, "headers": dict(request.headers)}


@contextmanager
def workers() -> Iterator[Workers]:
    """Yield workers that end with the block."""
    command = [sys.executable, "-P", str(_PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Workers(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def asked(document: str) -> Request:
    """Return the request for the label of one document."""
    return Request({"data": document.encode("utf-8", "surrogatepass")})


def asked_many(questions: Sequence[tuple[str, int]]) -> Request:
    """Return the request for the labels of many documents."""
    listed = [{"document": document, "k": k} for document, k in questions]
    return Request({"documents": json.dumps(listed).encode()})
