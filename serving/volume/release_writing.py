"""Writes releases: compare and set, under a lock, by one rename.

Readers see the former release or the next one. A writer holds a lock of the system on a file beside the release; the
system releases the lock of a writer that dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from serving.domain.errors import (
    ModelNotFound,
    ModelUnusable,
    ReleaseConflict,
    ServingError,
    VolumeReadOnly,
    VolumeUnavailable,
)
from serving.domain.model_id import ModelId
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.volume import model_folder
from serving.volume.model_store import ModelStore

LOCK_FILE: Final = ".release.lock"
_STAGED: Final = ".release.staged"

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READABLE_BY_ALL: Final = 0o644
_WRITABLE: Final = 0o666
"""Mode before the umask is applied, so that several operators can share a volume."""
_NOT_TO_BE_WRITTEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def change_release(
    root: Path,
    name: ModelId,
    change: Callable[[Release | None], Release],
    *,
    expected_revision: int | None = None,
) -> Release:
    """Replace the release of ``name`` by the result of ``change``, through to the disk, and return the result. Blocks.

    Args:
        root: the model folder.
        name: a name whose folder contains its versions.
        change: returns the next release, with the next revision, for the present one, or for ``None`` without one.
        expected_revision: the revision that the caller knows; 0: no release exists; ``None``: any revision.

    Raises:
        ModelNotFound: no folder has this name.
        ReleaseConflict: the release has another revision, or is being changed by another writer.
        InvalidRelease: the present release is invalid.
        VolumeReadOnly: this process cannot write to the volume.
        VolumeUnavailable: the volume does not answer, or is full.
        ServingError: raised by ``change``. Nothing has changed in this case.
    """
    with release_lock(root, name) as folder:
        former = _read(root, name)
        revision = check_revision(former, expected_revision)
        following = change(former)
        if following.revision != revision + 1:
            raise ValueError(f"revision {following.revision} does not follow {revision}")
        with writing():
            _write(folder, following.to_json().encode())
            _expect_its_name(root, name, folder)
        return following


def check_revision(release: Release | None, expected: int | None) -> int:
    """Return the revision of a release, 0 without one, and check that it is ``expected``; ``None``: any revision.

    Raises:
        ReleaseConflict: the release has another revision.
    """
    revision = 0 if release is None else release.revision
    if expected is not None and expected != revision:
        raise ReleaseConflict(f"the release has revision {revision}, not {expected}; review it, and decide again")
    return revision


@contextlib.contextmanager
def release_lock(root: Path, name: ModelId) -> Iterator[int]:
    """Hold the lock on the release of ``name``, and yield the descriptor of its folder. Never waits for the lock.

    Raises:
        ModelNotFound: no such folder exists.
        ModelUnusable: the folder is a link to another one.
        ReleaseConflict: another writer holds the lock, or has just moved the folder away.
        VolumeReadOnly: this process cannot write to the volume.
        VolumeUnavailable: the volume does not answer, or does not support locks.
    """
    model_folder.enter(str(root))
    with contextlib.ExitStack() as stack:
        with writing():
            folder = os.open(root / name, _FOLDER)
            stack.callback(os.close, folder)
            lock = os.open(LOCK_FILE, _LOCK, _WRITABLE, dir_fd=folder)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ReleaseConflict(
                    "another change of the release is in progress; review the release, and try again"
                ) from error
            _expect_lock_file(folder, lock)
            _expect_its_name(root, name, folder)
        yield folder


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turn the file system's errors for a writer into errors of the tree.

    Raises:
        ModelNotFound: the folder or file to change is missing.
        ModelUnusable: the folder is a link.
        VolumeReadOnly: this process cannot write to the volume.
        VolumeUnavailable: the volume does not answer, is full, or does not support locks.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ModelNotFound("no model has this name") from error
    except OSError as error:
        raise _translated(error) from error


def _read(root: Path, name: ModelId) -> Release | None:
    store = ModelStore(root)
    return None if store.release_file(name) is None else store.read_release(name)


def _write(folder: int, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_STAGED, dir_fd=folder)  # left by a writer that died
    staged = os.open(_STAGED, _NEW_FILE, _READABLE_BY_ALL, dir_fd=folder)
    try:
        with os.fdopen(staged, "wb") as file:
            # A restrictive umask of this process would keep the services from reading the file.
            os.fchmod(staged, _READABLE_BY_ALL)
            file.write(data)
            file.flush()
            _set_apart(folder, staged)
            os.fsync(staged)
        os.replace(_STAGED, RELEASE_FILE, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(_STAGED, dir_fd=folder)
        raise
    os.fsync(folder)


def _set_apart(folder: int, staged: int) -> None:
    """Give the file a later time than the former one: file-system clocks are coarse, and readers compare this time."""
    with contextlib.suppress(FileNotFoundError):
        former = os.stat(RELEASE_FILE, dir_fd=folder, follow_symlinks=False).st_mtime_ns
        moment = max(time.time_ns(), former + 1)
        os.utime(staged, ns=(moment, moment))


def _expect_lock_file(folder: int, lock: int) -> None:
    """Raise ReleaseConflict if the locked file was removed meanwhile: other writers lock a new file."""
    try:
        named = os.stat(LOCK_FILE, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        named = None
    if named is None or not os.path.samestat(named, os.fstat(lock)):
        raise ReleaseConflict("the model's folder was removed or replaced meanwhile; check the folder, and try again")


def _expect_its_name(root: Path, name: ModelId, folder: int) -> None:
    """Raise ReleaseConflict unless the name still leads to the folder."""
    try:
        named = (root / name).lstat()
    except FileNotFoundError:
        named = None
    if named is None or not os.path.samestat(named, os.fstat(folder)):
        raise ReleaseConflict("the model's folder was removed or replaced meanwhile; check the folder, and try again")


def _translated(error: OSError) -> ServingError:
    if error.errno in _NOT_TO_BE_WRITTEN:
        return VolumeReadOnly(
            "this service may only read the model volume; run the same intentctl command with --model-dir "
            "where the volume is writable, and the services follow"
        )
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return ModelUnusable("the model's folder is a link to another one; name the other one, or remove the link")
    if error.errno in _FULL:
        return VolumeUnavailable("the model volume is full; free space on it, and try again")
    if error.errno in (errno.ENOLCK, errno.ENOTSUP):
        return VolumeUnavailable(
            "the model volume does not support file locks; mount it with locks, or change releases elsewhere"
        )
    return VolumeUnavailable("the model volume does not answer at the moment; try again")
