"""The folder of all models: a link that is swapped, a folder that is gone, a folder that may not be read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import ModelFolderUnavailable, ModelNotFound, status_of
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume import open_folder
from serving.volume.deleting import delete, models_in, remove_hidden
from serving.volume.file_identity import have_changed
from serving.volume.inventory import Inventory
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, ModelStore
from serving.volume.publishing import publish
from serving.volume.release_writing import change_release
from tests.serving.refusals import refused

A, B = parse_model_id("a"), parse_model_id("b")
NOBODY = 65534


def put(root: Path, *names: ModelId, content: str = "") -> Path:
    """Write models below ``root`` and return it."""
    for name in names:
        (root / name).mkdir(parents=True)
        for file in MODEL_FILES:
            text = f'{{"Algorithm": "{content or name}"}}' if file == MANIFEST_FILE else content
            (root / name / file).write_text(text)
    return root


def swap(link: Path, target: Path) -> None:
    """Let the link lead elsewhere in one step, as git-sync and release scripts do."""
    staged = link.with_name("staged-link")
    staged.symlink_to(target)
    staged.replace(link)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """A link to a folder with the model A."""
    put(tmp_path / "revision-1", A, content="first")
    link = tmp_path / "current"
    link.symlink_to("revision-1")
    return link


def algorithm(store: ModelStore, name: ModelId = A) -> str:
    return store.read_manifest(name).algorithm


def test_a_link_that_is_swapped_is_followed_by_the_next_look(current: Path) -> None:
    store = ModelStore(current)
    before = store.fingerprint(A)
    assert algorithm(store) == "first"
    swap(current, put(current.parent / "revision-2", A, B, content="second"))
    assert algorithm(store) == "second"
    assert store.fingerprint(A) != before
    assert store.model_ids() == [A, B]
    shutil.rmtree(current.parent / "revision-1")
    assert algorithm(store) == "second"


def test_known_files_of_the_former_revision_have_changed(current: Path) -> None:
    store = ModelStore(current)
    known = store.known_files(A, dict(zip(MODEL_FILES, store.fingerprint(A).files, strict=True)))
    assert not have_changed(known)
    swap(current, put(current.parent / "revision-2", A, content="second"))
    assert have_changed(known)


def test_a_model_that_the_new_revision_lacks_is_not_found(current: Path) -> None:
    store = ModelStore(current)
    swap(current, put(current.parent / "revision-2", B))
    with refused(ModelNotFound):
        store.fingerprint(A)


@pytest.mark.parametrize("operation", ["open", "status"])
def test_a_revision_that_is_removed_during_a_look_is_left_for_the_new_one(
    current: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    second = put(current.parent / "revision-2", A, content="second")
    real = getattr(open_folder.OpenFolder, operation)

    def swapped_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        swap(current, second)
        shutil.rmtree(current.parent / "revision-1")
        return real(*arguments)

    monkeypatch.setattr(open_folder.OpenFolder, operation, swapped_first)
    store = ModelStore(current)
    if operation == "open":
        assert algorithm(store) == "second"
    else:
        assert store.fingerprint(A).missing == ()


def test_links_of_a_model_must_stay_below_the_revision_that_is_read(current: Path) -> None:
    (current / A / MANIFEST_FILE).unlink()
    (current / A / MANIFEST_FILE).symlink_to("kept.json")
    (current / A / "kept.json").write_text('{"Algorithm": "linked"}')
    assert algorithm(ModelStore(current)) == "linked"


READERS: dict[str, Callable[[ModelStore], object]] = {
    "fingerprint": lambda store: store.fingerprint(A),
    "manifest": lambda store: store.read_manifest(A),
    "release file": lambda store: store.release_file(A),
    "folders": lambda store: store.folders(),
    "folders of a name": lambda store: store.folders(A),
    "models": lambda store: store.model_ids(),
    "names": lambda store: store.names(),
    "versions": lambda store: store.versions(A),
    "summary": lambda store: Inventory(store).summary(A),
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "release": lambda root: change_release(root, A, lambda _: None),  # type: ignore[arg-type, return-value]
    "models to delete": lambda root: models_in(root, A),
    "delete": lambda root: delete(root, A, force=True),
    "remove hidden": remove_hidden,
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_takes_a_folder_that_is_gone_for_models_that_are_gone(current: Path, reader: str) -> None:
    store = ModelStore(current)
    shutil.rmtree(current.parent / "revision-1")
    with refused(ModelFolderUnavailable) as caught:
        READERS[reader](store)
    assert status_of(caught.value).code.name == "UNAVAILABLE"
    put(current.parent / "revision-1", A)
    READERS[reader](store)


@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_takes_a_folder_that_is_gone_for_models_that_are_gone(current: Path, writer: str) -> None:
    shutil.rmtree(current.parent / "revision-1")
    with refused(ModelFolderUnavailable):
        WRITERS[writer](current)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_in_place_of_the_folder_is_no_folder(tmp_path: Path, reader: str) -> None:
    (tmp_path / "models").write_text("")
    with refused(ModelFolderUnavailable):
        READERS[reader](ModelStore(tmp_path / "models"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up the rights of root, to whom every folder is open."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("reader", ["fingerprint", "manifest", "release file"])
def test_a_folder_that_may_not_be_entered_says_nothing_about_its_models(reader: str) -> None:
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        root = put(Path(outer) / "models", A)
        store = ModelStore(root)
        with unprivileged():
            READERS[reader](store)
        root.chmod(0)
        with unprivileged(), refused(ModelFolderUnavailable):
            READERS[reader](store)
        root.chmod(0o755)


def test_what_is_published_during_a_swap_is_in_one_revision(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(current.parent / "source", A) / A
    second = put(current.parent / "revision-2", A)
    rename = Path.rename

    def swapped_first(path: Path, target: Path) -> Path:
        swap(current, second)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", swapped_first)
    publish(source, current, B)
    monkeypatch.undo()
    assert ModelStore(current.parent / "revision-1").model_ids() == [A, B]
    assert ModelStore(second).model_ids() == [A]
