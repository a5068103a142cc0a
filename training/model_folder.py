"""The folder of a model, which appears whole or not at all."""

from __future__ import annotations

import io
import json
import os
import platform
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from serving.manifest import Manifest
from serving.model_id import ModelId
from serving.model_store import MANIFEST_FILE, VOCABULARY_FILE, WEIGHTS_FILE
from training.data import DataSet
from training.errors import FolderUnwritable, ModelExists
from training.model import TOKENIZER, Accuracy, TrainedModel
from training.recipe import Recipe
from training.torchtext_file import vocabulary_file

ALGORITHM: Final = "intent-classification"

_DECIMALS: Final = 4


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: with it, and with the data, the model can be made again."""

    data: DataSet
    recipe: Recipe
    seed: int


def model_files(
    model: TrainedModel, accuracy: Accuracy, provenance: Provenance, model_id: ModelId, model_version: str
) -> dict[str, bytes]:
    """Return the files of the folder, by name. Equal models of equal provenance give equal bytes.

    Raises:
        InvalidManifest: the version, or a label, is none that a manifest can have.
    """
    weights = io.BytesIO()
    torch.save(model.network.state_dict(), weights)
    manifest = Manifest.parse(
        json.dumps(
            {
                "ModelName": model_id,
                "ModelVersion": model_version,
                "Algorithm": ALGORITHM,
                "Framework": "Pytorch",
                "FrameworkVersion": _torch_version(),
                "CodeVersion": _code_version(),
                "Tokenizer": TOKENIZER.value,
                "fc_size": provenance.recipe.fc_size,
                "classes": {str(index): label for index, label in enumerate(model.labels)},
                "Training": _training(model, accuracy, provenance),
            }
        ).encode()
    )
    return {
        WEIGHTS_FILE: weights.getvalue(),
        VOCABULARY_FILE: vocabulary_file(model.vocabulary),
        MANIFEST_FILE: manifest.to_json().encode(),
    }


def check_free(root: Path, model_id: ModelId) -> None:
    """Check that no folder of this id is there.

    Raises:
        ModelExists: there is one.
    """
    if os.path.lexists(root / model_id):
        raise ModelExists(f"the model {model_id} is there already; choose another id, or replace it with --force")


def write_model_folder(root: Path, model_id: ModelId, files: Mapping[str, bytes], *, replace: bool) -> Path:
    """Write ``files`` as the folder of ``model_id`` below ``root``, and return the folder.

    They are written beside it first, in a folder whose name is no model id, and reach the disk before it is renamed.

    Raises:
        ModelExists: the folder is there already, and ``replace`` is false.
        FolderUnwritable: the file system refused. What was there before is there still.
    """
    target = root / model_id
    staging = _hidden_neighbour(target)
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        for name, data in files.items():
            _write(staging / name, data)
        _sync(staging)
        if replace:
            _move_in_place_of(target, staging)
        else:
            check_free(root, model_id)
            staging.rename(target)
        _sync(root)
    except OSError as error:
        raise FolderUnwritable(f"the folder of {model_id} cannot be written: {error.strerror}") from error
    finally:
        _remove(staging)
    return target


def _move_in_place_of(target: Path, staging: Path) -> None:
    old = _hidden_neighbour(target)
    try:
        target.rename(old)
    except FileNotFoundError:
        staging.rename(target)
        return
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    _remove(old)


def _hidden_neighbour(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def _remove(path: Path) -> None:
    """Remove a folder, or the link to one, where there is one."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _training(model: TrainedModel, accuracy: Accuracy, provenance: Provenance) -> dict[str, Any]:
    data = provenance.data
    measured = {
        "validation": model.validation_accuracy,
        "test_in_scope": accuracy.in_scope,
        "test_with_out_of_scope": accuracy.overall,
    }
    return {
        "accuracy": {name: round(value, _DECIMALS) for name, value in measured.items() if value is not None},
        "data": [asdict(source) for source in data.sources],
        "rows": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "tokens": len(model.vocabulary),
        "seed": provenance.seed,
        "epochs": model.epochs,
        "best_epoch": model.best_epoch,
        "recipe": asdict(provenance.recipe),
        "libraries": {"python": platform.python_version(), "torch": _torch_version()},
    }


def _torch_version() -> str:
    """Return the release of torch, without what tells one build of it from another."""
    return torch.__version__.partition("+")[0]


def _code_version() -> str:
    try:
        return version("intent-serving")
    except PackageNotFoundError:
        return "0.1.0"
