from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.domain.errors import (
    FilesChanged,
    InvalidManifest,
    InvalidModelFile,
    ModelFolderUnavailable,
    ModelIncomplete,
    ModelNotFound,
    ModelUnusable,
    VolumeUnavailable,
)
from serving.domain.manifest import MAX_MANIFEST_BYTES
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, VOCABULARY_FILE, WEIGHTS_FILE, ModelStore
from tests.serving.refusals import refused

ID = parse_model_id("7")
LIMIT = 1 << 20
MANIFEST = b'{"Algorithm": "a"}'


def publish(root: Path, name: str = ID, *, without: str = "") -> Path:
    """Write a model's three files below ``root`` and return their folder."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in MODEL_FILES:
        if file != without:
            (folder / file).write_bytes(MANIFEST if file == MANIFEST_FILE else f"{name} {file}".encode())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> ModelStore:
    return ModelStore(root)


def read(store: ModelStore, name: str = WEIGHTS_FILE, limit: int = LIMIT) -> bytes:
    return store.read(ID, name, limit)


# Reading.


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 4096], ids=len)
def test_a_file_is_read_to_its_last_byte(root: Path, store: ModelStore, content: bytes) -> None:
    (publish(root) / WEIGHTS_FILE).write_bytes(content)
    assert read(store) == content


def test_a_file_that_arrives_in_pieces_is_read_whole(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(root)
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, 3)))
    assert read(store) == b"7 model.pth"


def test_the_limit_is_the_last_size_that_is_read(root: Path, store: ModelStore) -> None:
    (publish(root) / WEIGHTS_FILE).write_bytes(b"x" * 100)
    assert len(read(store, limit=100)) == 100
    with refused(InvalidModelFile, match="model.pth of the model is larger than the limit of 99 bytes"):
        read(store, limit=99)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (publish(root) / WEIGHTS_FILE).open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    with refused(InvalidModelFile):
        read(store)


def test_no_descriptor_is_left_open_whatever_the_outcome(root: Path, store: ModelStore) -> None:
    folder = publish(root)
    (folder / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name, limit in [(WEIGHTS_FILE, LIMIT), (WEIGHTS_FILE, 1), ("folder", LIMIT), ("none", LIMIT)] * 5:
        try:
            store.read(ID, name, limit)
        except ModelUnusable:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named(root: Path, store: ModelStore, name: str) -> None:
    publish(root, without=name)
    with refused(ModelIncomplete, match=f"^{name} "):
        store.read(ID, name, LIMIT)
    assert store.fingerprint(ID).missing == (name,)


@pytest.mark.parametrize("operation", ["fingerprint", "read"])
@pytest.mark.parametrize("there", ["nothing", "file", "dangling"])
def test_an_id_without_a_folder_is_not_found(root: Path, store: ModelStore, operation: str, there: str) -> None:
    if there == "file":
        (root / ID).write_text("")
    if there == "dangling":
        (root / ID).symlink_to("gone")
    with refused(ModelNotFound):
        read(store) if operation == "read" else store.fingerprint(ID)


def test_a_root_that_comes_later_is_read_then(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "later")
    with refused(ModelFolderUnavailable):
        read(store)
    publish(tmp_path / "later")
    assert read(store) == b"7 model.pth"


def test_a_manifest_is_read_up_to_its_bound(root: Path, store: ModelStore) -> None:
    path = publish(root) / MANIFEST_FILE
    path.write_bytes(MANIFEST.ljust(MAX_MANIFEST_BYTES))
    assert store.read_manifest(ID).algorithm == "a"
    path.write_bytes(MANIFEST.ljust(MAX_MANIFEST_BYTES + 1))
    with refused(
        InvalidModelFile, match=f"manifest.json of the model is larger than the limit of {MAX_MANIFEST_BYTES} "
    ):
        store.read_manifest(ID)


def test_a_wrong_manifest_is_refused_as_one(root: Path, store: ModelStore) -> None:
    (publish(root) / MANIFEST_FILE).write_bytes(b"{}")
    with refused(InvalidManifest):
        store.read_manifest(ID)


# Links, and paths that are not files.


def test_links_below_the_root_are_followed(root: Path, store: ModelStore) -> None:
    folder = publish(root, "shared")
    (root / ID).mkdir()
    (root / ID / WEIGHTS_FILE).symlink_to(folder / WEIGHTS_FILE)
    (root / ID / VOCABULARY_FILE).symlink_to(f"../shared/{VOCABULARY_FILE}")
    assert read(store) == b"shared model.pth"
    assert read(store, VOCABULARY_FILE) == b"shared vocab.pth"
    assert store.fingerprint(ID).missing == (MANIFEST_FILE,)


def test_the_layout_of_a_kubernetes_volume_is_read_and_its_switch_is_seen(root: Path, store: ModelStore) -> None:
    folder = root / ID
    for version in ("..2026_01", "..2026_02"):
        publish(folder, version)
    (folder / "..data").symlink_to("..2026_01")
    for name in MODEL_FILES:
        (folder / name).symlink_to(f"..data/{name}")
    first = store.fingerprint(ID)
    assert store.model_ids() == [ID]
    assert read(store) == b"..2026_01 model.pth"
    (folder / "..data_tmp").symlink_to("..2026_02")
    (folder / "..data_tmp").rename(folder / "..data")
    assert read(store) == b"..2026_02 model.pth"
    assert store.fingerprint(ID) != first


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    publish(root)
    (tmp_path / "link").symlink_to(root)
    store = ModelStore(tmp_path / "link")
    assert read(store) == b"7 model.pth"
    assert store.model_ids() == [ID]


def linked_out(folder: Path) -> None:
    (folder.parent.parent / "secret").write_text("secret")
    (folder / WEIGHTS_FILE).symlink_to("../../secret")


def linked_out_absolutely(folder: Path) -> None:
    (folder / WEIGHTS_FILE).symlink_to("/etc/passwd")


def linked_to_a_sibling_of_the_root(folder: Path) -> None:
    # The sibling's path begins with the root's path as text.
    sibling = Path(f"{folder.parent}-2")
    publish(sibling)
    (folder / WEIGHTS_FILE).symlink_to(sibling / ID / WEIGHTS_FILE)


def linked_to_itself(folder: Path) -> None:
    (folder / WEIGHTS_FILE).symlink_to(WEIGHTS_FILE)


def linked_in_a_loop(folder: Path) -> None:
    (folder / WEIGHTS_FILE).symlink_to("other")
    (folder / "other").symlink_to(WEIGHTS_FILE)


def a_fifo(folder: Path) -> None:
    os.mkfifo(folder / WEIGHTS_FILE)


def a_folder(folder: Path) -> None:
    (folder / WEIGHTS_FILE).mkdir()


def a_device(folder: Path) -> None:
    os.mknod(folder / WEIGHTS_FILE, 0o666 | 0o020000, os.makedev(1, 5))


ODD_FILES: list[Callable[[Path], None]] = [
    linked_out,
    linked_out_absolutely,
    linked_to_a_sibling_of_the_root,
    linked_to_itself,
    linked_in_a_loop,
    a_fifo,
    a_folder,
    a_device,
]


@pytest.mark.timeout(5)
@pytest.mark.parametrize("make", ODD_FILES)
def test_what_is_no_file_of_the_volume_is_refused_at_once(
    root: Path, store: ModelStore, make: Callable[[Path], None]
) -> None:
    folder = publish(root, without=WEIGHTS_FILE)
    try:
        make(folder)
    except PermissionError:
        pytest.skip("only root makes devices, and not in every container")
    with refused(InvalidModelFile):
        read(store)


@pytest.mark.parametrize("target", ["../outside", "loop"])
def test_a_model_folder_that_leads_out_of_the_root_is_refused(root: Path, store: ModelStore, target: str) -> None:
    publish(root.parent, "outside")
    (root / ID).symlink_to(target)
    (root / "loop").symlink_to("loop")
    with refused(InvalidModelFile):
        read(store)
    with refused(InvalidModelFile):
        store.fingerprint(ID)
    assert store.model_ids() == []


def test_a_file_without_permission_is_refused(root: Path, store: ModelStore) -> None:
    path = publish(root) / WEIGHTS_FILE
    path.chmod(0o000)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file: run the tests as another than root")
    with refused(ModelUnusable, match="permissions"):
        read(store)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_volume_that_denies_access_asks_for_its_permissions(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    publish(root)
    fail(monkeypatch, "open", number, times=1)
    with refused(ModelUnusable, match="permissions"):
        read(store)


# Changes.


def test_a_fingerprint_stays_while_nothing_changes(root: Path, store: ModelStore) -> None:
    publish(root)
    fingerprint = store.fingerprint(ID)
    assert fingerprint == store.fingerprint(ID)
    assert fingerprint.missing == ()
    assert [file.size for file in fingerprint.files if file] == [18, 11, 11]


@pytest.mark.parametrize("name", MODEL_FILES)
@pytest.mark.parametrize("change", ["replaced", "touched", "grown", "removed"])
def test_a_fingerprint_changes_with_each_file(root: Path, store: ModelStore, name: str, change: str) -> None:
    path = publish(root) / name
    before = store.fingerprint(ID)
    status = path.stat()
    if change == "replaced":
        # The new file has the same size and time, as an archive restores them.
        other = path.with_suffix(".new")
        other.write_bytes(path.read_bytes())
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.rename(path)
    elif change == "touched":
        os.utime(path, ns=(0, status.st_mtime_ns + 1))
    elif change == "grown":
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        path.unlink()
    assert store.fingerprint(ID) != before


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, 3)


def rewritten(path: Path) -> None:
    path.write_bytes(b"8 MODEL.PTH")
    os.utime(path, ns=(0, 1))


@pytest.mark.parametrize("change", [appended, cut, rewritten])
def test_a_file_that_is_written_to_while_it_is_read_is_not_taken(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = publish(root) / WEIGHTS_FILE
    real = os.read

    def interrupted(descriptor: int, size: int) -> bytes:
        monkeypatch.undo()
        first = real(descriptor, 5)
        change(path)
        return first

    monkeypatch.setattr(os, "read", interrupted)
    with refused(FilesChanged, match=r"^model\.pth of the model is being written"):
        read(store)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(root) / WEIGHTS_FILE
    real = os.read

    def interrupted(descriptor: int, size: int) -> bytes:
        monkeypatch.undo()
        (path.parent / "new").write_bytes(b"the new one")
        (path.parent / "new").rename(path)
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", interrupted)
    assert read(store) == b"7 model.pth"
    assert read(store) == b"the new one"


def replace_once_open(monkeypatch: pytest.MonkeyPatch, folder: Path, times: int) -> None:
    """Replace ``folder`` by a copy, and delete the old one, right after it was opened, the first ``times`` times."""
    real = os.open
    left = [times]

    def interrupted(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = real(path, flags, *args, **kwargs)
        if Path(path) == folder and left[0]:
            left[0] -= 1
            shutil.copytree(folder, folder.with_name(".new"))
            folder.rename(folder.with_name(".old"))
            folder.with_name(".new").rename(folder)
            shutil.rmtree(folder.with_name(".old"))
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (read, b"7 model.pth"),
        (lambda store: store.fingerprint(ID).missing, ()),
        (lambda store: store.model_ids(), [ID]),
    ],
    ids=["read", "fingerprint", "list"],
)
def test_a_folder_that_is_replaced_while_it_is_open_is_never_incomplete(
    root: Path,
    store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[ModelStore], object],
    found: object,
) -> None:
    folder = publish(root)
    replace_once_open(monkeypatch, folder, times=3)
    assert look(store) == found


def test_a_folder_that_is_removed_while_it_is_open_is_not_found(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(root)
    real = os.open

    def interrupted(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = real(path, flags, *args, **kwargs)
        monkeypatch.undo()
        shutil.rmtree(folder)
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    with refused(ModelNotFound):
        read(store)


# A volume that fails.


def fail(monkeypatch: pytest.MonkeyPatch, function: str, number: int, times: int) -> None:
    """Make ``os.function`` fail ``times`` times with the error ``number``, on model.pth only."""
    real = getattr(os, function)
    left = [times]

    def failing(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith(WEIGHTS_FILE) and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, function, failing)


OPERATIONS: dict[str, Callable[[ModelStore], object]] = {
    "open": read,
    "stat": lambda store: store.fingerprint(ID),
}


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_one_failure_of_a_network_volume_is_not_seen(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    publish(root)
    expected = OPERATIONS[function](store)
    fail(monkeypatch, function, number, times=1)
    assert OPERATIONS[function](store) == expected


@pytest.mark.parametrize("function", OPERATIONS)
@pytest.mark.parametrize("failure", [(errno.ESTALE, 2), (errno.EIO, 2), (errno.EMFILE, 1), (errno.ENOMEM, 1)], ids=str)
def test_a_volume_that_fails_for_longer_is_unavailable(
    root: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch, function: str, failure: tuple[int, int]
) -> None:
    publish(root)
    fail(monkeypatch, function, *failure)
    with refused(VolumeUnavailable):
        OPERATIONS[function](store)
    # The store made no third attempt, and works again.
    OPERATIONS[function](store)


# The list.


def test_the_list_has_the_folders_with_a_manifest_and_nothing_else(root: Path, store: ModelStore) -> None:
    for name in ("b", "10", "9", "A", "x_model", "-"):
        publish(root, name)
    publish(root, "without-weights", without=WEIGHTS_FILE)
    publish(root, "without-manifest", without=MANIFEST_FILE)
    for name in (".hidden", "..data", ".tmp-1", "two words", "a" * 129, "é", "new\nline", "ａ"):
        publish(root, name)
    (root / "manifest.json").write_bytes(MANIFEST)
    (root / "file").write_text("")
    (root / "link").symlink_to("b")
    (root / "manifest-is-a-folder").mkdir()
    (root / "manifest-is-a-folder" / MANIFEST_FILE).mkdir()
    assert store.model_ids() == ["-", "10", "9", "A", "b", "link", "without-weights", "x_model"]


def test_names_that_are_no_text_are_left_out_of_the_list(root: Path, store: ModelStore) -> None:
    publish(root)
    (root / os.fsdecode(b"\xff\xfe")).mkdir()
    assert store.model_ids() == [ID]


def test_one_odd_entry_does_not_hide_the_other_models(root: Path, store: ModelStore) -> None:
    publish(root)
    (root / "loop").symlink_to("loop")
    publish(root, "manifest-loops", without=MANIFEST_FILE)
    (root / "manifest-loops" / MANIFEST_FILE).symlink_to(MANIFEST_FILE)
    publish(root.parent, "outside")
    (root / "out").symlink_to("../outside")
    assert store.model_ids() == [ID]


def test_every_listed_id_can_be_read(root: Path, store: ModelStore) -> None:
    for number in range(20):
        publish(root, str(number))
    assert len(store.model_ids()) == 20
    assert all(store.read_manifest(model_id).algorithm == "a" for model_id in store.model_ids())


def test_an_empty_volume_has_an_empty_list(store: ModelStore) -> None:
    assert store.model_ids() == []


@pytest.mark.parametrize("broken", ["missing", "file"])
def test_a_volume_that_cannot_be_listed_is_unavailable(tmp_path: Path, broken: str) -> None:
    if broken == "file":
        (tmp_path / "volume").write_text("")
    with refused(VolumeUnavailable):
        ModelStore(tmp_path / "volume").model_ids()


def test_models_of_the_store_are_told_apart_by_case_where_the_volume_does(root: Path, store: ModelStore) -> None:
    publish(root, "model")
    if (root / "MODEL").exists():
        pytest.skip("this file system does not tell upper from lower case")
    with refused(ModelNotFound):
        store.fingerprint(ModelId("MODEL"))
