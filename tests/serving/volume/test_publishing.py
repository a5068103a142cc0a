from __future__ import annotations

import functools
import hashlib
import json
import threading
from pathlib import Path

import pytest

from serving.domain.errors import ChecksumMismatch, ModelExists, ModelIncomplete, ModelInService, ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import parse_model_id, versioned
from serving.volume import publishing
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, VOCABULARY_FILE, WEIGHTS_FILE, ModelStore
from serving.volume.publishing import seal
from tests.frontend.releases.running import write_release
from tests.serving.domain.releases.test_changes import of

MODEL = parse_model_id("intent")

# The sources of these tests are at rest.
publish = functools.partial(publishing.publish, settle_seconds=0.0)


def source(folder: Path, version: str = "1.0") -> Path:
    folder.mkdir()
    (folder / "model.pth").write_bytes(b"weights " + version.encode())
    (folder / "vocab.pth").write_bytes(b"vocabulary " + version.encode())
    manifest = {"Algorithm": "intent-classification", "ModelVersion": version, "classes": {"0": "a"}, "Extra": [1]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_a_folder_is_sealed_in_place_and_its_manifest_keeps_everything_else(tmp_path: Path) -> None:
    folder = source(tmp_path / "model")
    before = Manifest.parse((folder / MANIFEST_FILE).read_bytes())
    sealed = seal(folder)
    assert Manifest.parse((folder / MANIFEST_FILE).read_bytes()) == sealed == before.with_files(sealed.files)
    for name in (WEIGHTS_FILE, VOCABULARY_FILE):
        data = (folder / name).read_bytes()
        assert (sealed.files[name].size, sealed.files[name].sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)


def test_a_folder_that_is_sealed_as_another_copy_is_not_sealed_again(tmp_path: Path) -> None:
    folder = source(tmp_path / "model")
    seal(folder)
    (folder / WEIGHTS_FILE).write_bytes(b"weights 2.0")
    before = (folder / MANIFEST_FILE).read_bytes()
    with pytest.raises(ChecksumMismatch):
        seal(folder)
    assert (folder / MANIFEST_FILE).read_bytes() == before


def test_a_published_manifest_tells_sizes_and_sums_and_keeps_what_it_said(root: Path, tmp_path: Path) -> None:
    published = publish(source(tmp_path / "new"), root, MODEL)

    manifest = ModelStore(root).read_manifest(MODEL)
    assert manifest == published
    for name in ("model.pth", "vocab.pth"):
        data = (root / MODEL / name).read_bytes()
        assert data == (tmp_path / "new" / name).read_bytes()
        assert manifest.files[name].size == len(data)
        assert manifest.files[name].sha256 == hashlib.sha256(data).hexdigest()
    assert json.loads((root / MODEL / "manifest.json").read_text())["Extra"] == [1]
    assert "Files" not in json.loads((tmp_path / "new" / "manifest.json").read_text())


def test_a_model_that_is_there_is_kept_unless_it_is_to_be_replaced(root: Path, tmp_path: Path) -> None:
    publish(source(tmp_path / "old"), root, MODEL)
    new = source(tmp_path / "new", "2.0")

    with pytest.raises(ModelExists):
        publish(new, root, MODEL)
    assert ModelStore(root).read_manifest(MODEL).model_version == "1.0"

    publish(new, root, MODEL, replace=True)
    assert ModelStore(root).read_manifest(MODEL).model_version == "2.0"


@pytest.mark.parametrize("name", ["manifest.json", "model.pth", "vocab.pth"])
def test_what_is_incomplete_or_wrong_is_not_published_and_leaves_nothing_behind(
    root: Path, tmp_path: Path, name: str
) -> None:
    new = source(tmp_path / "new")
    (new / name).unlink()
    with pytest.raises(ModelIncomplete, match=name):
        publish(new, root, MODEL)

    (new / name).write_bytes(b"{")
    if name == "manifest.json":
        with pytest.raises(ServingError):
            publish(new, root, MODEL)
        assert list(root.iterdir()) == []


def test_where_folders_cannot_be_exchanged_files_are_replaced_manifest_last(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(source(tmp_path / "old"), root, MODEL)
    order: list[str] = []
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        order.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)

    publish(source(tmp_path / "new", "2.0"), root, MODEL, replace=True, exchange=lambda *_: False)

    assert order == ["model.pth", "vocab.pth", "manifest.json"]
    assert (root / MODEL / "model.pth").read_bytes() == b"weights 2.0"
    assert sorted(path.name for path in root.iterdir()) == [MODEL]


def test_a_link_is_not_replaced_by_accident(root: Path, tmp_path: Path) -> None:
    publish(source(tmp_path / "old"), root, MODEL)
    linked = parse_model_id("linked")
    (root / linked).symlink_to(root / MODEL)

    with pytest.raises(ModelExists, match="link"):
        publish(source(tmp_path / "new"), root, linked, replace=True)


def test_of_many_first_publishers_one_wins_and_the_others_are_told(root: Path, tmp_path: Path) -> None:
    sources = [source(tmp_path / str(number), str(number)) for number in range(8)]
    begin = threading.Barrier(len(sources))
    outcomes: list[str] = []

    def run(folder: Path) -> None:
        begin.wait()
        try:
            outcomes.append(publish(folder, root, MODEL).model_version)
        except ModelExists:
            outcomes.append("refused")

    threads = [threading.Thread(target=run, args=(folder,)) for folder in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [outcome for outcome in outcomes if outcome != "refused"]
    assert len(outcomes) == len(sources)
    assert ModelStore(root).read_manifest(MODEL).model_version == winner
    assert [path.name for path in root.iterdir()] == [MODEL]


@pytest.mark.slow
def test_readers_see_the_old_model_or_the_new_one_and_never_a_gap(root: Path, tmp_path: Path) -> None:
    sources = [source(tmp_path / str(number), str(number)) for number in range(2)]
    publish(sources[0], root, MODEL)
    stop = threading.Event()
    seen: list[str] = []
    failures: list[Exception] = []

    def read() -> None:
        store = ModelStore(root)
        while not stop.is_set():
            try:
                seen.append(store.read_manifest(MODEL).model_version)
            except ServingError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        publish(sources[number % 2], root, MODEL, replace=True)
    stop.set()
    reader.join()

    assert failures == []
    assert set(seen) <= {"0", "1"}


def test_a_version_is_published_below_its_name(root: Path, tmp_path: Path) -> None:
    store = ModelStore(root)
    for version in ("1", "2"):
        publish(source(tmp_path / version, version), root, versioned(MODEL, version))
    assert store.versions(MODEL) == ["intent@1", "intent@2"]
    assert store.read_manifest(versioned(MODEL, "2")).model_version == "2"
    assert sorted(path.name for path in root.iterdir()) == ["intent"]
    with pytest.raises(ModelExists):
        publish(tmp_path / "1", root, versioned(MODEL, "1"))


def test_a_version_stays_as_it_went_live(root: Path, tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        publish(source(tmp_path / version, version), root, versioned(MODEL, version))
    write_release(root, of("1", "2"), MODEL)
    for version in ("1", "2"):
        with pytest.raises(ModelInService):
            publish(tmp_path / "3", root, versioned(MODEL, version), replace=True)
    publish(tmp_path / "1", root, versioned(MODEL, "3"), replace=True)
    assert ModelStore(root).read_manifest(versioned(MODEL, "3")).model_version == "1"


def test_a_name_with_versions_is_not_replaced_by_a_model(root: Path, tmp_path: Path) -> None:
    publish(source(tmp_path / "1"), root, versioned(MODEL, "1"))
    with pytest.raises(ModelExists, match="has versions"):
        publish(tmp_path / "1", root, MODEL, replace=True)
    assert ModelStore(root).versions(MODEL) == ["intent@1"]


def test_versions_may_be_published_beside_a_model_of_the_name(root: Path, tmp_path: Path) -> None:
    publish(source(tmp_path / "flat"), root, MODEL)
    publish(tmp_path / "flat", root, versioned(MODEL, "1"))
    assert ModelStore(root).model_ids() == ["intent"]
    assert ModelStore(root).versions(MODEL) == ["intent@1"]
