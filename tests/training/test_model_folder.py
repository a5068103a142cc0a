from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from predictor.model.loader import FileLimits, Loader
from serving.domain.errors import ModelExists
from serving.domain.model_id import ModelId
from serving.volume.model_store import MODEL_FILES, ModelStore
from training.data import DataSet, Example
from training.errors import FolderUnwritable
from training.model import measure, train_model
from training.model_folder import Provenance, check_free, model_files, write_model_folder
from training.recipe import Recipe
from training.trainer import Epoch

MODEL = ModelId("tenant-1")
OLD, NEW = (
    {"manifest.json": b'{"Algorithm": "%b"}' % age, "model.pth": b"weights " + age, "vocab.pth": b"tokens " + age}
    for age in (b"old", b"new")
)


def ignore(_: Epoch) -> None:
    """Ignore the epoch."""


def files_of(data: DataSet, seed: int) -> dict[str, bytes]:
    recipe = Recipe(dimensions=8, fc_size=12, epochs=3, learning_rate=0.05)
    model = train_model(data, recipe, seed, ignore)
    return model_files(model, measure(model.served, data.test), Provenance(data, recipe, seed), MODEL, "2.1")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_served_as_it_was_measured(tiny: DataSet, tmp_path: Path) -> None:
    write_model_folder(tmp_path, MODEL, files_of(tiny, 0), replace=False)
    loader = Loader(ModelStore(tmp_path), FileLimits())
    model = loader.load(MODEL, loader.fingerprint(MODEL))
    assert names(tmp_path / MODEL) == sorted(MODEL_FILES)
    assert (model.labels, model.version) == (("music", "oos", "weather"), "2.1")
    answers = [model.labels[row] for row in model.logits([row.text for row in tiny.validation]).argmax(axis=1).tolist()]
    right = sum(answer == row.label for answer, row in zip(answers, tiny.validation, strict=True))
    manifest = json.loads((tmp_path / MODEL / "manifest.json").read_text())
    assert manifest["Training"]["accuracy"]["validation"] == round(right / len(answers), 4)


def test_the_manifest_tells_what_the_contract_and_a_repetition_need(tiny: DataSet) -> None:
    manifest = json.loads(files_of(tiny, 5)["manifest.json"])
    training = manifest.pop("Training")
    confidence, baseline = manifest.pop("Confidence"), manifest.pop("Baseline")
    example = manifest.pop("Example")
    assert Example(example["document"], example["label"]) in tiny.validation
    assert (confidence.keys(), confidence["fallback"]) == ({"temperature", "threshold", "fallback"}, "oos")
    assert (baseline["documents"], sum(baseline["confidence"]), sum(baseline["labels"].values())) == (15, 15, 15)
    assert manifest == {
        "Algorithm": "intent-classification",
        "Framework": "Pytorch",
        "FrameworkVersion": torch.__version__.split("+")[0],
        "ModelName": MODEL,
        "ModelVersion": "2.1",
        "CodeVersion": manifest["CodeVersion"],
        "Tokenizer": "basic_english+normalized+words:2+characters:3-5",
        "fc_size": 12,
        "classes": {"0": "music", "1": "oos", "2": "weather"},
    }
    assert training["accuracy"].keys() == {
        "validation",
        "test_in_scope",
        "test_in_scope_without_threshold",
        "test_out_of_scope_recall",
        "test_with_out_of_scope",
        "test_calibration_error",
    }
    assert training["rows"] == {"train": 30, "validation": 15, "test": 15}
    assert (training["seed"], training["recipe"]["dimensions"]) == (5, 8)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny: DataSet) -> None:
    first, again, other = files_of(tiny, 1), files_of(tiny, 1), files_of(tiny, 2)
    assert first == again
    assert first["vocab.pth"] == other["vocab.pth"]
    assert first["model.pth"] != other["model.pth"]


def test_the_weights_are_plain_tensors_of_float32(tiny: DataSet) -> None:
    state = torch.load(io.BytesIO(files_of(tiny, 0)["model.pth"]), weights_only=True)
    assert list(state) == ["embedding.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def weights_in(root: Path) -> bytes:
    assert names(root) == [MODEL]
    assert names(root / MODEL) == sorted(MODEL_FILES)
    return (root / MODEL / "model.pth").read_bytes()


def test_a_model_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    check_free(tmp_path, MODEL)
    write_model_folder(tmp_path, MODEL, OLD, replace=False)
    with pytest.raises(ModelExists, match=r"tenant-1 already exists; .*--replace"):
        check_free(tmp_path, MODEL)
    with pytest.raises(ModelExists):
        write_model_folder(tmp_path, MODEL, NEW, replace=False)
    assert weights_in(tmp_path) == OLD["model.pth"]


def test_a_model_is_sealed(tmp_path: Path) -> None:
    write_model_folder(tmp_path, MODEL, NEW, replace=False)
    files = ModelStore(tmp_path).read_manifest(MODEL).files
    assert {name: file.sha256 for name, file in files.items()} == {
        name: hashlib.sha256(NEW[name]).hexdigest() for name in ("model.pth", "vocab.pth")
    }


def test_a_model_is_replaced_and_the_notes_beside_it_stay(tmp_path: Path) -> None:
    write_model_folder(tmp_path, MODEL, OLD, replace=False)
    (tmp_path / MODEL / "notes.txt").write_text("ask Ann")
    write_model_folder(tmp_path, MODEL, NEW, replace=True)
    assert (tmp_path / MODEL / "model.pth").read_bytes() == NEW["model.pth"]
    assert (tmp_path / MODEL / "notes.txt").read_text() == "ask Ann"


def test_a_root_that_is_missing_is_made(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "new" / "root", MODEL, NEW, replace=True)
    assert weights_in(tmp_path / "new" / "root") == NEW["model.pth"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("calls_that_work", [0, 1, 2, 3])
def test_a_failed_replacement_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, calls_that_work: int
) -> None:
    write_model_folder(tmp_path, MODEL, OLD, replace=False)
    outcomes: Iterator[BaseException | None] = iter([*[None] * calls_that_work, error])

    def fsync(_: int) -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((FolderUnwritable, KeyboardInterrupt)) as raised:
        write_model_folder(tmp_path, MODEL, NEW, replace=True)
    if isinstance(raised.value, FolderUnwritable):
        assert str(raised.value) == "the folder of tenant-1 cannot be written: No space left on device"
    assert weights_in(tmp_path) == OLD["model.pth"]


def test_nothing_is_left_behind_when_a_first_model_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FolderUnwritable, match="No space left"):
        write_model_folder(tmp_path, MODEL, NEW, replace=False)
    assert names(tmp_path) == []
