"""Writers publish nothing that a predictor would refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intentctl.output import EXIT_FAILED
from serving.domain.errors import InvalidManifest
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from tests.intentctl.archives import intentctl, loaded, small_model
from tests.predictor.builders import saved, state_dict
from training.model_folder import check_labels

LONG = (
    "How do I change the delivery address of an order for article number {:05d} after it has been paid and before {}?"
)


def questions(count: int, length: int = 130) -> list[str]:
    """Return long labels, as help desks have them."""
    return [LONG.format(number, "it is sent").ljust(length, "x") for number in range(count)]


def folder_of(tmp_path: Path, labels: list[str], **keys: Any) -> Path:
    classes = {str(number): label for number, label in enumerate(labels)}
    weights = state_dict(5, 4, len(labels))
    return small_model(
        tmp_path / "source", "m", weights=weights, classes=classes, Algorithm="intent-classification", **keys
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def published(folder: Path, models: Path) -> Any:
    return intentctl("publish", folder, "m", "--model-dir", models)


def test_eight_thousand_long_labels_are_published_and_served(models: Path, tmp_path: Path) -> None:
    labels = questions(8000)
    result = published(folder_of(tmp_path, labels, Baseline={"labels": dict.fromkeys(labels, 7)}), models)
    assert result.exit_code == 0, result.output
    assert list(loaded(models, "m").labels) == labels


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "too many labels": (
        lambda folder: folder.joinpath("manifest.json").write_text(
            json.dumps({"Algorithm": "intent-classification", "classes": dict(enumerate(questions(70_000)))})
        ),
        "manifest.json has",
    ),
    "a manifest that only its indentation makes too large": (
        lambda folder: folder.joinpath("manifest.json").write_text(
            json.dumps(
                {"Algorithm": "intent-classification", "classes": {"0": "a", "1": "b"}, "Notes": ["x" * 33] * 230_000},
                separators=(",", ":"),
            )
        ),
        "manifest.json has",
    ),
    "another number of labels": (
        lambda folder: folder.joinpath("model.pth").write_bytes(saved(state_dict(5, 4, 3))),
        "must agree",
    ),
    "a vocabulary that is text": (
        lambda folder: folder.joinpath("vocab.pth").write_text("<unk>\nrain\n"),
        "vocab.pth seems to be plain text",
    ),
    "weights that are no weights": (
        lambda folder: folder.joinpath("model.pth").write_bytes(b"weights"),
        "model.pth seems to be plain text",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_predictor_would_refuse_is_not_published(fault: str, models: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["a", "b"])
    change, message = FAULTS[fault]
    change(folder)
    result = published(folder, models)
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, ""), result.output
    assert message in result.stderr
    assert list(models.iterdir()) == []


def test_a_model_in_service_is_not_replaced_by_one_that_cannot_be_loaded(models: Path, tmp_path: Path) -> None:
    assert published(folder_of(tmp_path, ["a", "b"]), models).exit_code == 0
    bad = folder_of(tmp_path / "bad", ["a", "b"])
    (bad / "vocab.pth").write_bytes(b"")
    result = intentctl("publish", bad, "m", "--model-dir", models, "--replace")
    assert result.exit_code == EXIT_FAILED
    assert "vocab.pth is empty" in result.stderr
    assert loaded(models, "m").labels == ("a", "b")


def test_a_model_of_another_engine_is_published_whatever_its_files_are(models: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["a", "b"])
    manifest = json.loads((folder / "manifest.json").read_text()) | {"Algorithm": "another"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.pth").write_bytes(b"of another engine")
    assert published(folder, models).exit_code == 0


def test_labels_are_checked_as_a_trained_model_writes_them() -> None:
    check_labels(questions(25_000))
    with pytest.raises(InvalidManifest, match="shorten its labels"):
        check_labels(questions(40_000))


def test_a_manifest_of_more_values_than_a_model_needs_is_refused_before_it_is_parsed() -> None:
    hostile = b'{"Algorithm": "a", "x": [' + b"{}," * (1 << 20) + b"{}]}"
    assert len(hostile) < MAX_MANIFEST_BYTES
    with pytest.raises(InvalidManifest, match="more values than any model needs"):
        Manifest.parse(hostile)
