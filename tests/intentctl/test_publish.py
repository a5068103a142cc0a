"""Writers publish nothing that a predictor would refuse."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intentctl.output import EXIT_FAILED
from serving.domain.errors import FilesChanged, InvalidManifest
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId
from serving.volume.publishing import publish, seal
from tests.builders import PATIENCE, unseal
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


SAMPLES = Path("models")


def mixture(folder: Path, *, sealed: bool) -> Path:
    """Return a folder with the manifest of one sample over the weights and the vocabulary of another."""
    shutil.copytree(SAMPLES / "clinc150-travel", folder)
    shutil.copyfile(SAMPLES / "clinc150-banking" / "manifest.json", folder / "manifest.json")
    return folder if sealed else unseal(folder)


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "replaces"])
def test_a_folder_whose_own_sums_do_not_match_is_not_published(replaces: bool, models: Path, tmp_path: Path) -> None:
    if replaces:
        assert published(folder_of(tmp_path, ["a", "b"]), models).exit_code == 0
    folder = mixture(tmp_path / "mixture", sealed=True)
    result = intentctl("publish", folder, "m", "--model-dir", models, "--replace")
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, ""), result.output
    assert "model.pth is not the file that manifest.json describes" in result.stderr
    assert "take Files out of manifest.json" in result.stderr
    assert [path.name for path in models.iterdir()] == ["m"] * replaces
    if replaces:
        assert loaded(models, "m").labels == ("a", "b")


@pytest.mark.parametrize("name", ["model.pth", "vocab.pth"])
def test_a_single_file_that_is_not_the_one_of_the_sums_is_refused(name: str, models: Path, tmp_path: Path) -> None:
    folder = seal_of(folder_of(tmp_path, ["a", "b"]))
    with (folder / name).open("ab") as file:
        file.write(b"!")
    result = published(folder, models)
    assert (result.exit_code, list(models.iterdir())) == (EXIT_FAILED, [])
    assert f"{name} is not the file" in result.stderr


def test_a_change_that_is_meant_is_published_once_the_sums_are_taken_out(models: Path, tmp_path: Path) -> None:
    folder = mixture(tmp_path / "mixture", sealed=False)
    assert published(folder, models).exit_code == 0
    assert loaded(models, "m").labels == tuple(Manifest.parse((folder / "manifest.json").read_bytes()).labels)


def test_a_source_with_sums_is_published_without_a_rest(tmp_path: Path, models: Path) -> None:
    folder = seal_of(folder_of(tmp_path, ["a", "b"]))
    publish(folder, models, ModelId("m"), settle_seconds=1e6)
    assert loaded(models, "m").labels == ("a", "b")


@pytest.mark.parametrize("name", ["manifest.json", "model.pth", "vocab.pth"])
@pytest.mark.parametrize("sealed", [False, True], ids=["foreign", "sealed"])
def test_a_source_that_is_still_written_is_refused(name: str, sealed: bool, tmp_path: Path, models: Path) -> None:
    folder = folder_of(tmp_path, ["a", "b"])
    if sealed:
        seal_of(folder)

    def written_meanwhile(_: Path) -> None:
        # Another program puts equal bytes in place, as the next file of its copy.
        staged = folder / "staged"
        staged.write_bytes((folder / name).read_bytes())
        staged.replace(folder / name)

    with pytest.raises(FilesChanged, match="are being written"):
        publish(folder, models, ModelId("m"), check=written_meanwhile, settle_seconds=0.0)
    assert list(models.iterdir()) == []


def test_a_foreign_source_has_to_be_at_rest_for_a_second_before_it_is_published(tmp_path: Path, models: Path) -> None:
    folder = folder_of(tmp_path, ["a", "b"])
    checked = threading.Event()
    refusals: list[Exception] = []

    def publish_source() -> None:
        try:
            publish(folder, models, ModelId("m"), check=lambda _: checked.set())
        except FilesChanged as error:
            refusals.append(error)

    publisher = threading.Thread(target=publish_source)
    publisher.start()
    assert checked.wait(PATIENCE)
    # The last file of a copy arrives after everything was copied and checked.
    (folder / "vocab.pth").write_bytes((folder / "vocab.pth").read_bytes())
    publisher.join(PATIENCE)
    assert len(refusals) == 1
    assert list(models.iterdir()) == []


def test_times_of_files_do_not_count(tmp_path: Path, models: Path) -> None:
    folder = folder_of(tmp_path, ["a", "b"])
    for name in ("manifest.json", "model.pth", "vocab.pth"):
        os.utime(folder / name, (2e9, 4e9))
    assert published(folder, models).exit_code == 0


def test_a_mixture_is_neither_exported_nor_imported(tmp_path: Path, models: Path) -> None:
    folder = mixture(models / "mixed", sealed=True)
    result = intentctl(
        "export", "mixed", "--torchserve", "--model-dir", models, "--model-store", tmp_path, "--publish-as", "copy"
    )
    assert result.exit_code == EXIT_FAILED, result.output
    archive = tmp_path / "model-m.mar"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    result = intentctl("import", archive, "--model-dir", models)
    assert result.exit_code == EXIT_FAILED, result.output
    assert [path.name for path in models.iterdir()] == ["mixed"]


def test_a_model_that_is_still_copied_to_the_volume_is_not_exported(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unseal(Path(shutil.copytree(SAMPLES / "clinc150-travel", models / "arriving")))

    def arrives(_: float) -> None:
        shutil.copyfile(SAMPLES / "clinc150-banking" / "model.pth", folder / "model.pth")

    monkeypatch.setattr(time, "sleep", arrives)
    result = intentctl(
        "export", "arriving", "--torchserve", "--model-dir", models, "--model-store", tmp_path, "--publish-as", "copy"
    )
    assert result.exit_code == EXIT_FAILED, result.output
    assert "being written" in result.stderr
    assert [path.name for path in models.iterdir()] == ["arriving"]


def seal_of(folder: Path) -> Path:
    seal(folder)
    return folder


def test_labels_are_checked_as_a_trained_model_writes_them() -> None:
    check_labels(questions(25_000))
    with pytest.raises(InvalidManifest, match="shorten its labels"):
        check_labels(questions(40_000))


def test_a_manifest_of_more_values_than_a_model_needs_is_refused_before_it_is_parsed() -> None:
    hostile = b'{"Algorithm": "a", "x": [' + b"{}," * (1 << 20) + b"{}]}"
    assert len(hostile) < MAX_MANIFEST_BYTES
    with pytest.raises(InvalidManifest, match="more values than any model needs"):
        Manifest.parse(hostile)
