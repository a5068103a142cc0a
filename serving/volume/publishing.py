"""Publishes a model on the shared volume so that no reader ever sees a partial model.

The files are staged beside their destination, written through to the disk, and put in place by one rename. The manifest
contains their sizes and SHA-256 sums, so that a reader can detect a damaged copy. Sums are written only for files that
belong to one copy: existing sums must match, and files without sums must be unchanged for a while.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from serving.domain.errors import (
    ChecksumMismatch,
    FilesChanged,
    ModelExists,
    ModelIncomplete,
    ModelInService,
)
from serving.domain.manifest import FileSum, Manifest
from serving.domain.model_id import ModelId, reference_of
from serving.domain.releases.changes import protected_versions
from serving.volume.file_identity import FileIdentity
from serving.volume.model_store import (
    MANIFEST_FILE,
    MODEL_FILES,
    SEALED_FILES,
    SETTLE_SECONDS,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Fingerprint,
    ModelStore,
    folders_of,
)

_STAGING: Final = ".staging-"
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2

# Errors of a rename when another publisher was first.
_ALREADY_THERE: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})

# Errors of file systems and C libraries that cannot exchange two folders.
_CANNOT_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


def exchange_folders(first: Path, second: Path) -> bool:
    """Swap two folders in one step; return whether the system supports this."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def _accept(folder: Path) -> None:
    """Do nothing: the caller checks the files."""


def publish(
    source: Path,
    root: Path,
    model_id: ModelId,
    *,
    replace: bool = False,
    check: Callable[[Path], None] = _accept,
    exchange: Callable[[Path, Path], bool] = exchange_folders,
    settle_seconds: float = SETTLE_SECONDS,
) -> Manifest:
    """Publish the model files of the folder ``source`` as ``model_id`` below ``root``; return the published manifest.

    Readers see the old model or the new one. ``source`` is not changed. The published manifest has the sums of the
    other files.

    Before readers see it, the copy is passed to ``check``, which raises an error if the copy cannot be served.

    Args:
        source: folder with the model's files. Links in it are followed.
        root: the model folder.
        model_id: id of the published model.
        replace: whether an existing model of this id is replaced.
        check: raises an error if the copy in the given folder cannot be served.
        exchange: swaps two folders; where it returns that the system cannot, the files are replaced one by one.
        settle_seconds: time for which the files of ``source`` must be unchanged if its manifest has no checksums of
            them; 0 for files that the caller has written.

    Raises:
        ModelIncomplete: a file is missing in ``source``.
        FilesChanged: a file in ``source`` changed while it was published.
        ChecksumMismatch: the manifest in ``source`` has the sums of other files.
        InvalidManifest: the manifest in ``source`` is invalid, or would be larger than what is read.
        ServingError: ``check`` raised it. Nothing of the new model is left.
        ModelExists: the model exists, and ``replace`` is false.
        ModelInService: the model is a version that is live, or that a rollback needs: such versions must not change.
        OSError: the volume cannot be written to. Nothing of the new model is left on it.
    """
    # Links in the path of the root may be swapped in the meantime; a rename must not lead from one root to another.
    root = root.resolve()
    _expect_files(source)
    target = root.joinpath(*folders_of(model_id))
    if any(folder.is_symlink() for folder in (target, target.parent) if folder != root):
        raise ModelExists(f"{model_id} is a link to another folder; publish to the other one, or remove the link")
    if target.exists() and not replace:
        raise _exists(model_id)
    if target.exists():
        _check_may_change(root, model_id)
    staging = root / f"{_STAGING}{uuid.uuid4().hex}"
    try:
        copying = _Copying(source, settle_seconds)
        manifest = copying.stage(staging)
        check(staging)
        copying.expect_rest()
        _keep_other_files(target, staging)
        if target.parent != root and not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            _sync_folder(root)
        _put_in_place(staging, target, exchange, replace=replace)
    except OSError as error:
        if error.errno in _ALREADY_THERE:
            raise _exists(model_id) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _expect_files(source: Path) -> None:
    """Raise ModelIncomplete if a file is missing. A model on another server, or a pipeline, needs only its manifest."""
    missing = [name for name in MODEL_FILES if not (source / name).is_file()]
    if missing and (MANIFEST_FILE in missing or not Manifest.parse((source / MANIFEST_FILE).read_bytes()).is_elsewhere):
        raise ModelIncomplete(f"{source.name} has no {' and no '.join(missing)}")


def seal(folder: Path) -> Manifest:
    """Write the sums of a model's files into the manifest beside them, in one step for readers; return the manifest.

    Raises:
        InvalidManifest: the manifest is invalid.
        ChecksumMismatch: the manifest has the sums of other files.
        OSError: a file is missing, or the folder cannot be written to.
    """
    manifest = _sealed(
        Manifest.parse((folder / MANIFEST_FILE).read_bytes()), {name: _sum_of(folder / name) for name in SEALED_FILES}
    )
    staged = folder / f"{_STAGING}{uuid.uuid4().hex}"
    staged.write_text(manifest.to_json(), encoding="utf-8")
    staged.replace(folder / MANIFEST_FILE)
    return manifest


def _sum_of(path: Path) -> FileSum:
    with path.open("rb") as file:
        return FileSum(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _check_may_change(root: Path, model_id: ModelId) -> None:
    name, version = reference_of(model_id)
    store = ModelStore(root)
    released = store.release_file(name) is not None
    if not version and (released or store.versions(name)):
        raise ModelExists(f"{name} has versions; publish another version, as {name}@VERSION")
    if version and released and version in protected_versions(store.read_release(name)):
        raise ModelInService(f"{model_id} is live, or a rollback may make it live; publish another version")


def _exists(model_id: ModelId) -> ModelExists:
    return ModelExists(f"a model {model_id} already exists; replace it with --replace, or choose another id")


class _Copying:
    """Copies a source, and finds out whether the files belong to one copy of a model.

    The time for which the files are unchanged is measured as in the predictor: on this machine's monotonic clock, from
    the moment when they were first seen. The times of the files may come from the clock of a file server.
    """

    def __init__(self, source: Path, settle_seconds: float) -> None:
        self._source = source
        self._settle_seconds = settle_seconds
        self._first_seen = time.monotonic()
        self._fingerprint = self._look()

    def stage(self, staging: Path) -> Manifest:
        """Copy the source to ``staging``, with sums; return the manifest of the copy."""
        original = Manifest.parse((self._source / MANIFEST_FILE).read_bytes())
        has_one_file = original.is_elsewhere and not any((self._source / name).exists() for name in SEALED_FILES)
        if has_one_file or all(name in original.files for name in SEALED_FILES):
            self._settle_seconds = 0.0
        staging.mkdir()
        sums = {
            name: _copy(self._source / name, staging / name)
            for name in SEALED_FILES
            if (self._source / name).exists() or not original.is_elsewhere
        }
        self._expect_no_change()
        manifest = _sealed(original, sums)
        written = manifest.to_json().encode()
        # With checksums and indentation, it can exceed what readers accept.
        Manifest.parse(written)
        with (staging / MANIFEST_FILE).open("wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(staging)
        return manifest

    def expect_rest(self) -> None:
        """Return once the source has been unchanged for long enough; raise FilesChanged if it changes."""
        time.sleep(max(0.0, self._first_seen + self._settle_seconds - time.monotonic()))
        self._expect_no_change()

    def _expect_no_change(self) -> None:
        if self._look() != self._fingerprint:
            raise FilesChanged(f"the files in {self._source.name} are being written; publish them once that is over")

    def _look(self) -> Fingerprint:
        return Fingerprint(tuple(FileIdentity.at(self._source / name) for name in MODEL_FILES))


def _sealed(manifest: Manifest, sums: Mapping[str, FileSum]) -> Manifest:
    """Return the manifest with the sums of the files; raise ChecksumMismatch if it has the sums of other files."""
    for name, actual in sums.items():
        if manifest.files.get(name, actual) != actual:
            raise ChecksumMismatch(
                f"{name} is not the file that manifest.json describes; copy the model again or, if the change is meant,"
                " take Files out of manifest.json"
            )
    return manifest.with_files(sums)


def _keep_other_files(target: Path, staging: Path) -> None:
    """Copy files that are not part of the model, such as notes or archives for another engine, to the new copy."""
    if target.is_dir():
        for file in target.iterdir():
            if file.name not in MODEL_FILES and file.is_file():
                shutil.copy2(file, staging / file.name)


def _copy(source: Path, target: Path) -> FileSum:
    """Copy a file through to the disk, and return the size and sum of the copy."""
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
            size += writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return FileSum(size=size, sha256=digest.hexdigest())


def _put_in_place(staging: Path, target: Path, exchange: Callable[[Path, Path], bool], *, replace: bool) -> None:
    # The plain rename fails if another publisher was first.
    if not replace or not target.exists():
        staging.rename(target)
    elif not exchange(staging, target):
        # The manifest is last: until then, the old manifest's checksums do not match the mixture, and readers keep
        # their copy.
        for name in (WEIGHTS_FILE, VOCABULARY_FILE, MANIFEST_FILE):
            if (staging / name).exists():
                (staging / name).replace(target / name)
        _sync_folder(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
