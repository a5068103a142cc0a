from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch

from predictor.model.intent_model import IntentModel
from predictor.model.loader import WORKSPACE, FileLimits, Loader
from serving.domain.errors import (
    ChecksumMismatch,
    FilesChanged,
    FilesUnsettled,
    ForbiddenPickle,
    InvalidManifest,
    InvalidModelFile,
    LoadTooSlow,
    ModelIncomplete,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    ServingError,
)
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Prediction, Query
from serving.volume import open_folder
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, VOCABULARY_FILE, WEIGHTS_FILE, ModelStore
from tests.conftest import shared
from tests.predictor.builders import saved, state_dict
from tests.predictor.model.files.oversized import legacy_vocabulary
from tests.serving.refusals import refused

Steps: TypeAlias = Generator[int, None, IntentModel]

ID = parse_model_id("m-1")
TOKENS = ["<unk>", "the", "red"]
MANIFEST = {"Algorithm": "a", "ModelVersion": "2.0", "classes": {"0": "yes", "1": "no"}}

CONTENT = {
    MANIFEST_FILE: json.dumps(MANIFEST).encode(),
    WEIGHTS_FILE: saved(state_dict(3, 4, 2)),
    VOCABULARY_FILE: saved(TOKENS),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a whole model on a volume."""
    folder = tmp_path / "models" / ID
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def store(folder: Path) -> ModelStore:
    return ModelStore(folder.parent)


@pytest.fixture
def loader(store: ModelStore) -> Loader:
    return Loader(store, FileLimits())


def loaded(loader: Loader, document: str = "the red") -> Prediction:
    """Load the model and return its answer."""
    model = loader.load(ID, loader.fingerprint(ID))
    (outcome,) = model.predict([Query(ID, document)])
    assert isinstance(outcome, Prediction)
    return outcome


def test_a_whole_folder_is_a_model(loader: Loader) -> None:
    model = loader.load(ID, loader.fingerprint(ID))
    assert (model.model_id, model.version, model.labels) == (ID, "2.0", ("yes", "no"))
    assert loaded(loader).label in model.labels


def test_the_model_of_the_book_is_loaded_from_its_folder(tmp_path: Path) -> None:
    shutil.copytree(shared("seed-model/1"), tmp_path / ID)
    assert loaded(Loader(ModelStore(tmp_path), FileLimits()), "make a 10 minute timer").label == "timer"


def test_an_unknown_model_is_not_found(loader: Loader) -> None:
    with refused(ModelNotFound):
        loader.fingerprint(parse_model_id("other"))


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named_and_the_model_served_once_it_is_there(folder: Path, loader: Loader, name: str) -> None:
    complete = loader.fingerprint(ID)
    (folder / name).unlink()
    with refused(ModelIncomplete, match=f"no {name} yet"):
        loader.fingerprint(ID)
    with refused(ModelIncomplete, match=f"^{name} "):
        loader.load(ID, complete)
    (folder / name).write_bytes(CONTENT[name])
    assert loaded(loader).label in ("yes", "no")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"Algorithm": "pipeline", "Start": "a", "Steps": {"a": {"ask": "m"}}}, "the model is a pipeline"),
        ({"Algorithm": "intent-triton", "OpenInference": {}}, "the model is on another server"),
    ],
    ids=["pipeline", "another server"],
)
def test_a_model_without_weights_is_not_taken_for_an_upload(
    keys: dict[str, Any], told: str, folder: Path, loader: Loader
) -> None:
    for name in (WEIGHTS_FILE, VOCABULARY_FILE):
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps(keys))
    with refused(ModelUnusable, match=told) as caught:
        loader.fingerprint(ID)
    assert not isinstance(caught.value, ModelIncomplete)
    (folder / "manifest.json").write_text(json.dumps(keys)[:-5])
    with refused(ModelIncomplete):
        loader.fingerprint(ID)


def test_every_missing_file_is_named(folder: Path, loader: Loader) -> None:
    for name in (WEIGHTS_FILE, VOCABULARY_FILE):
        (folder / name).unlink()
    with refused(ModelIncomplete, match=r"no model\.pth and no vocab\.pth yet"):
        loader.fingerprint(ID)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_file_that_leads_nowhere_counts_as_missing(folder: Path, loader: Loader, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("not-yet")
    with refused(ModelIncomplete, match=f"no {name} yet"):
        loader.fingerprint(ID)


@pytest.mark.parametrize(("name", "limit"), [(WEIGHTS_FILE, "weights"), (VOCABULARY_FILE, "vocabulary")])
def test_a_file_beyond_its_limit_is_refused(store: ModelStore, name: str, limit: str) -> None:
    size = len(CONTENT[name])
    assert loaded(Loader(store, dataclasses.replace(FileLimits(), **{limit: size}))).label in ("yes", "no")
    smaller = Loader(store, dataclasses.replace(FileLimits(), **{limit: size - 1}))
    with refused(InvalidModelFile, match=f"^{name} of the model is larger than the limit of {size - 1} bytes"):
        loaded(smaller)


# Contents that are not a model.


NAN = torch.tensor([0.0, float("nan")])


def manifest(**keys: Any) -> bytes:
    return json.dumps(MANIFEST | keys).encode()


NO_MODELS: dict[str, tuple[type[ModelUnusable], str, bytes]] = {
    "manifest-damaged": (InvalidManifest, MANIFEST_FILE, b"{"),
    "manifest-empty": (InvalidManifest, MANIFEST_FILE, b""),
    "manifest-tokenizer": (InvalidManifest, MANIFEST_FILE, manifest(Tokenizer="none")),
    "manifest-classes": (InvalidModelFile, MANIFEST_FILE, manifest(classes={"0": "yes"})),
    "weights-empty": (InvalidModelFile, WEIGHTS_FILE, b""),
    "weights-cut": (InvalidModelFile, WEIGHTS_FILE, CONTENT[WEIGHTS_FILE][:-30]),
    "weights-nan": (InvalidModelFile, WEIGHTS_FILE, saved(state_dict(3, 4, 2) | {"fc1.bias": NAN})),
    "weights-of-others": (InvalidModelFile, WEIGHTS_FILE, saved(state_dict(3, 4, 5))),
    "weights-of-fewer-tokens": (InvalidModelFile, WEIGHTS_FILE, saved(state_dict(2, 4, 2))),
    "weights-a-module": (ForbiddenPickle, WEIGHTS_FILE, saved(torch.nn.Linear(2, 2))),
    "weights-a-vocabulary": (InvalidModelFile, WEIGHTS_FILE, CONTENT[VOCABULARY_FILE]),
    "vocabulary-empty": (InvalidModelFile, VOCABULARY_FILE, b""),
    "vocabulary-cut": (InvalidModelFile, VOCABULARY_FILE, CONTENT[VOCABULARY_FILE][:-30]),
    "vocabulary-a-state-dict": (InvalidModelFile, VOCABULARY_FILE, CONTENT[WEIGHTS_FILE]),
    "vocabulary-code": (ForbiddenPickle, VOCABULARY_FILE, b"\x80\x02cos\nsystem\nX\x01\0\0\0a\x85R."),
}


@pytest.mark.parametrize("fault", NO_MODELS)
def test_what_is_no_model_is_refused_and_its_repair_is_served(folder: Path, loader: Loader, fault: str) -> None:
    kind, name, content = NO_MODELS[fault]
    (folder / name).write_bytes(content)
    with refused(kind):
        loaded(loader)
    (folder / name).write_bytes(CONTENT[name])
    assert loaded(loader).label in ("yes", "no")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", MODEL_FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_what_is_no_file_does_not_hang_a_load(
    folder: Path, loader: Loader, name: str, make: Callable[[Path], None]
) -> None:
    (folder / name).unlink()
    make(folder / name)
    with refused(InvalidModelFile, match=f"^{name} of the model is not a regular file"):
        loaded(loader)


# Sizes and checksums of the files, if the manifest has them.


def sums(**changes: object) -> dict[str, dict[str, object]]:
    return {
        name: {"size": len(CONTENT[name]), "sha256": hashlib.sha256(CONTENT[name]).hexdigest()} | changes
        for name in (WEIGHTS_FILE, VOCABULARY_FILE)
    }


def test_files_that_are_as_the_manifest_describes_them_are_loaded(folder: Path, loader: Loader) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest(Files=sums()))
    assert loaded(loader).label in ("yes", "no")


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": 7}], ids=str)
@pytest.mark.parametrize("name", [WEIGHTS_FILE, VOCABULARY_FILE])
def test_a_file_that_is_not_as_the_manifest_describes_it_is_refused(
    folder: Path, loader: Loader, name: str, changes: dict[str, object]
) -> None:
    files = sums() | {name: sums(**changes)[name]}
    (folder / MANIFEST_FILE).write_bytes(manifest(Files=files))
    with refused(ChecksumMismatch, match=f"^{name} is not the file"):
        loaded(loader)


@pytest.mark.parametrize("cut", [-1, 100])
def test_a_damaged_file_is_told_by_its_sum_before_it_is_read_as_a_model(folder: Path, loader: Loader, cut: int) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest(Files=sums()))
    (folder / WEIGHTS_FILE).write_bytes(CONTENT[WEIGHTS_FILE][:cut])
    with refused(ChecksumMismatch):
        loaded(loader)


# Files that may still be arriving.


def test_files_that_may_still_be_arriving_are_loaded_if_sums_prove_them_to_be_one_copy(
    folder: Path, loader: Loader
) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest(Files=sums()))
    assert loader.load(ID, loader.fingerprint(ID), settled=False).labels == ("yes", "no")


@pytest.mark.parametrize("files", [{}, *({name: sums()[name]} for name in (WEIGHTS_FILE, VOCABULARY_FILE))], ids=list)
def test_without_a_sum_of_each_file_they_are_loaded_once_they_are_settled(
    folder: Path, loader: Loader, files: dict[str, object]
) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest(Files=files))
    with refused(FilesUnsettled, match="may still be arriving"):
        loader.load(ID, loader.fingerprint(ID), settled=False)
    assert loader.load(ID, loader.fingerprint(ID), settled=True).labels == ("yes", "no")


@pytest.mark.parametrize(
    ("content", "fault"),
    [(manifest(Files=sums(size=7)), ChecksumMismatch), (manifest()[:-1], InvalidManifest)],
    ids=["other sums", "half a manifest"],
)
def test_what_may_be_half_a_copy_is_called_damaged_only_once_it_is_settled(
    folder: Path, loader: Loader, content: bytes, fault: type[ServingError]
) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    with refused(FilesUnsettled):
        loader.load(ID, loader.fingerprint(ID), settled=False)
    with refused(fault):
        loader.load(ID, loader.fingerprint(ID), settled=True)


# Changes while a model is loaded.


@pytest.mark.parametrize(("changed", "at"), list(itertools.product(MODEL_FILES, repeat=2)))
def test_files_of_two_copies_never_make_one_model(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, folder: Path, *, changed: str, at: str
) -> None:
    fingerprint = loader.fingerprint(ID)
    real = open_folder.OpenFolder.open

    def opened(within: open_folder.OpenFolder, name: str) -> open_folder.OpenFile:
        file = real(within, name)
        if name == at:
            (folder / "new").write_bytes(CONTENT[changed])
            (folder / "new").rename(folder / changed)
        return file

    monkeypatch.setattr(open_folder.OpenFolder, "open", opened)
    with refused(FilesChanged, match="being written"):
        loader.load(ID, fingerprint)
    monkeypatch.undo()
    assert loaded(loader).label in ("yes", "no")


def test_a_copy_that_is_open_is_loaded_whole_whatever_is_published_meanwhile(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    fingerprint = loader.fingerprint(ID)
    real = open_folder.OpenFile.read

    def read(file: Any, limit: int) -> bytes:
        for name in MODEL_FILES:
            (folder / name).unlink(missing_ok=True)
        return real(file, limit)

    monkeypatch.setattr(open_folder.OpenFile, "read", read)
    assert loader.load(ID, fingerprint).labels == ("yes", "no")


def test_a_fingerprint_of_an_earlier_copy_is_refused(folder: Path, loader: Loader) -> None:
    fingerprint = loader.fingerprint(ID)
    (folder / WEIGHTS_FILE).write_bytes(saved(state_dict(9, 4, 2)))
    with refused(FilesChanged):
        loader.load(ID, fingerprint)


def test_a_model_outlives_its_files(folder: Path, loader: Loader) -> None:
    model = loader.load(ID, loader.fingerprint(ID))
    before = model.logits(["the red"])
    shutil.rmtree(folder)
    assert np.array_equal(model.logits(["the red"]), before)


# Memory.


def test_the_estimate_covers_what_the_model_takes(tmp_path: Path) -> None:
    tokens = [f"token{number}" for number in range(5000)]
    content = {
        MANIFEST_FILE: CONTENT[MANIFEST_FILE],
        WEIGHTS_FILE: saved(state_dict(5000, 32, 2)),
        VOCABULARY_FILE: saved(tokens),
    }
    (tmp_path / ID).mkdir()
    for name, data in content.items():
        (tmp_path / ID / name).write_bytes(data)
    loader = Loader(ModelStore(tmp_path), FileLimits())
    fingerprint = loader.fingerprint(ID)
    assert loader.load(ID, fingerprint).size <= loader.estimate(fingerprint) <= 2 * loader.load(ID, fingerprint).size


def steps_of(root: Path, workspace: int = WORKSPACE, **content: bytes) -> Steps:
    """Return the steps of the load of a model with these files instead of its own."""
    folder = root / ID
    folder.mkdir()
    for name, data in (CONTENT | {name.replace("_", "."): data for name, data in content.items()}).items():
        (folder / name).write_bytes(data)
    loader = Loader(ModelStore(root), FileLimits(), workspace=workspace)
    return loader.loading(ID, loader.fingerprint(ID))


def test_a_load_takes_no_more_memory_than_it_has_announced(tmp_path: Path) -> None:
    tokens = [f"token{number}" for number in range(20_000)]
    # Half precision, which doubles in memory, and a hidden layer narrower than what it connects, which folds into more.
    weights = {name: value.half() for name, value in state_dict(20_000, 512, 8, 2).items()}
    steps = steps_of(tmp_path, model_pth=saved(weights), vocab_pth=saved(tokens))
    announced = 0
    tracemalloc.start()
    try:
        while True:
            try:
                announced = max(announced, next(steps))
            except StopIteration as end:
                model = end.value
                break
            assert tracemalloc.get_traced_memory()[1] <= announced + WORKSPACE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.size <= announced
    assert peak <= announced + WORKSPACE


def test_a_small_file_that_folds_into_a_large_matrix_announces_it_before_it_is_there(tmp_path: Path) -> None:
    width = 30_000
    weights = {
        "embedding.weight": torch.ones(1, width),
        "fc1.weight": torch.ones(1, width),
        "fc1.bias": torch.ones(1),
        "fc2.weight": torch.ones(width, 1),
        "fc2.bias": torch.ones(width),
    }
    data = saved(weights)
    assert len(data) < 1 << 20
    steps = steps_of(tmp_path, model_pth=data)
    tracemalloc.start()
    try:
        assert any(size > 8 * width * width for size in itertools.islice(steps, 3))
        assert tracemalloc.get_traced_memory()[1] < WORKSPACE
    finally:
        tracemalloc.stop()
    loader = Loader(ModelStore(tmp_path), FileLimits())
    with refused(ModelTooLarge):
        loader.load(ID, loader.fingerprint(ID))


def test_a_vocabulary_of_far_more_tokens_than_rows_is_refused_by_both_numbers(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, vocab_pth=saved([f"token{number}" for number in range(100_000)]))
    with refused(InvalidModelFile, match=r"vocab\.pth has more tokens than the \d+ rows of model\.pth"):
        list(steps)


def test_an_old_vocabulary_that_needs_more_than_usual_announces_it(tmp_path: Path) -> None:
    data = legacy_vocabulary(itos=["the", "red"], stoi=["the", "red"], freqs=(f"{number:x}" for number in range(2000)))
    steps = steps_of(tmp_path, workspace=0, model_pth=saved(state_dict(2, 4, 2)), vocab_pth=data)
    announced = list(steps)
    assert announced[-1] > announced[0], "it was read in a second attempt, with more memory"


def test_a_check_is_called_again_and_again_and_ends_the_load(tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    for name, data in CONTENT.items():
        (tmp_path / ID / name).write_bytes(data)
    loader = Loader(ModelStore(tmp_path), FileLimits())
    calls: list[None] = []
    list(loader.loading(ID, loader.fingerprint(ID), check=lambda: calls.append(None)))
    assert len(calls) > 3

    def too_slow() -> None:
        raise LoadTooSlow("too slow")

    with refused(LoadTooSlow):
        list(loader.loading(ID, loader.fingerprint(ID), check=too_slow))
