"""Files of a trained model's folder, and their publication: complete or not at all."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from intent_serving_client.version import VERSION
from predictor.model.servable import check_servable
from serving.domain.answer_counts import AnswerCounts
from serving.domain.errors import ModelExists
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of
from serving.volume.model_store import MANIFEST_FILE, VOCABULARY_FILE, WEIGHTS_FILE, folders_of
from serving.volume.publishing import publish
from training.data import DataSet
from training.errors import FolderUnwritable
from training.model import ALGORITHM, Figures, TrainedModel
from training.recipe import Recipe
from training.torchtext_file import vocabulary_file

_DECIMALS: Final = 4

_LARGEST_COUNT: Final = 10**9
# Exceeds everything in a manifest other than its labels.
_ROOM_BYTES: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Provenance:
    """Origin of a model: data, recipe and seed, from which the model can be reproduced."""

    data: DataSet
    recipe: Recipe
    seed: int


def model_files(
    model: TrainedModel, figures: Figures, provenance: Provenance, model_id: ModelId, model_version: str
) -> dict[str, bytes]:
    """Return the files of the folder, by name. Identical models with the same provenance yield identical bytes.

    Raises:
        InvalidManifest: a manifest cannot hold the version or a label.
    """
    weights = io.BytesIO()
    torch.save(model.network.state_dict(), weights)
    manifest = Manifest.parse(
        json.dumps(
            {
                "ModelName": reference_of(model_id).name,
                "ModelVersion": model_version,
                "Algorithm": ALGORITHM,
                "Framework": "Pytorch",
                "FrameworkVersion": _torch_version(),
                "CodeVersion": VERSION,
                "Tokenizer": provenance.recipe.tokenizer,
                **({"fc_size": provenance.recipe.fc_size} if provenance.recipe.fc_size else {}),
                "classes": {str(index): label for index, label in enumerate(model.labels)},
                "Confidence": model.confidence.model_dump(),
                "Baseline": model.baseline.model_dump(),
                **({"Example": model.example.model_dump()} if model.example else {}),
                "Training": _training(model, figures, provenance),
            }
        ).encode()
    )
    return {
        WEIGHTS_FILE: weights.getvalue(),
        VOCABULARY_FILE: vocabulary_file(model.vocabulary),
        MANIFEST_FILE: manifest.to_json().encode(),
    }


def check_labels(labels: Sequence[str]) -> None:
    """Check that a manifest can hold the labels of a trained model, before time is spent on training.

    Raises:
        InvalidManifest: the manifest would be larger than what predictors read.
    """
    document = {
        "Algorithm": ALGORITHM,
        "classes": {str(index): label for index, label in enumerate(labels)},
        "Baseline": AnswerCounts(labels=dict.fromkeys(labels, _LARGEST_COUNT)).model_dump(),
        "Training": " " * _ROOM_BYTES,
    }
    # Read what would be written: the indentation counts too.
    Manifest.parse(Manifest.model_validate(document).to_json().encode())


def check_free(root: Path, model_id: ModelId) -> None:
    """Check that no folder with this id exists, before time is spent on training.

    Raises:
        ModelExists: the folder exists.
    """
    if root.joinpath(*folders_of(model_id)).exists():
        raise ModelExists(f"the model {model_id} already exists; choose another id, or replace it with --replace")


def write_model_folder(root: Path, model_id: ModelId, files: Mapping[str, bytes], *, replace: bool) -> Path:
    """Publish ``files`` as the folder of ``model_id`` below ``root``, which is created if it is missing.

    Raises:
        ModelExists: the folder exists, and ``replace`` is false.
        FolderUnwritable: the file system refused the operation. Existing files are unchanged.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as source:
            for name, data in files.items():
                (Path(source) / name).write_bytes(data)
            publish(Path(source), root, model_id, replace=replace, check=check_servable, settle_seconds=0.0)
    except OSError as error:
        raise FolderUnwritable(f"the folder of {model_id} cannot be written: {error.strerror}") from error
    return root.joinpath(*folders_of(model_id))


def _training(model: TrainedModel, figures: Figures, provenance: Provenance) -> dict[str, Any]:
    data = provenance.data
    measured = {
        "validation" if data.validation else "cross_validation": model.validation_accuracy,
        "test_in_scope": figures.in_scope,
        "test_in_scope_without_threshold": figures.in_scope_without_threshold,
        "test_out_of_scope_recall": figures.out_of_scope_recall,
        "test_with_out_of_scope": figures.overall,
        "test_calibration_error": figures.calibration_error,
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
    """Return the release of torch without the suffix that identifies a build."""
    return torch.__version__.partition("+")[0]
