"""Deletes models from the volume. Blocks.

A model's folder is first renamed to a name that no reader uses, so that no reader sees a partial model. Then the
files are removed. The folder of a name is removed with its last version, unless the folder holds anything else, such as
a release.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Final

from serving.domain.errors import InvalidModelId, ModelInService, ModelUnusable, VolumeUnavailable, no_such_model
from serving.domain.model_id import ModelId, parse_model_name, reference_of, versioned
from serving.domain.releases.changes import protected_versions
from serving.volume import model_folder
from serving.volume.inventory import Inventory
from serving.volume.model_store import MANIFEST_FILE, ModelStore
from serving.volume.release_writing import LOCK_FILE, release_lock, writing

HIDDEN: Final = ".deleted-"


def delete(root: Path, model_id: ModelId, *, force: bool = False) -> None:
    """Delete a model, a version of a name or, with ``force``, a name with everything in its folder.

    Raises:
        VolumeUnavailable: the model is gone, but some of its files are still on the volume.
        ServingError: as :func:`take_away` does. The model is still there.
    """
    take_away(root, model_id, force=force)
    remove_hidden(root)


def models_in(root: Path, model_id: ModelId) -> list[ModelId]:
    """Return the models that the deletion of ``model_id`` removes: the model itself, or the versions of a name, sorted.

    Every folder below a name counts as a version, even if its manifest is damaged or missing: an engine may hold an
    older copy.

    Raises:
        ModelNotFound: no folder has this name.
        ModelUnusable: the name leads to something other than a folder.
        VolumeUnavailable: the volume does not answer.
    """
    name, version = reference_of(model_id)
    if version:
        return [model_id]
    model_folder.enter(str(root))
    with writing(), os.scandir(root / name) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
        has_own = (root / name / MANIFEST_FILE).exists()
    versions: list[ModelId] = []
    for folder in folders:
        with contextlib.suppress(InvalidModelId):
            versions.append(versioned(name, parse_model_name(folder)))
    return [name, *versions] if has_own or not versions else versions


def take_away(root: Path, model_id: ModelId, *, force: bool = False) -> None:
    """Hide a model from all readers by one rename; :func:`remove_hidden` removes its files.

    Raises:
        ModelNotFound: no such model exists.
        ModelInService: the model is protected, and ``force`` is false: a model in a folder of its own, a whole name, a
            version that is live, or the former stable version that a rollback needs.
        ModelUnusable: the model's folder is a link to another one.
        ReleaseConflict: the release is being changed at the moment.
        VolumeReadOnly: this process cannot write to the volume.
        VolumeUnavailable: the volume does not answer.
    """
    name, version = reference_of(model_id)
    # Links in the path of the root may be swapped in the meantime; a rename must not lead from one root to another.
    root = Path(model_folder.resolved(str(root)))
    with release_lock(root, name), writing():
        folder = root / name / version if version else root / name
        if folder.is_symlink():
            raise ModelUnusable("the model's folder is a link to another one; name the other one, or remove the link")
        if not folder.is_dir():
            raise no_such_model(model_id)
        if not force:
            _check_unprotected(Inventory(ModelStore(root)), name, version)
        folder.rename(root / f"{HIDDEN}{uuid.uuid4().hex}")
        if version:
            _remove_if_empty(root / name)


def remove_hidden(root: Path) -> None:
    """Remove the files of hidden models, including those left by an interrupted deletion.

    Raises:
        VolumeUnavailable: the volume does not answer, or some of the files are still on it.
    """
    model_folder.enter(str(root))
    with writing():
        hidden = [entry.path for entry in os.scandir(root) if entry.name.startswith(HIDDEN)]
    for path in hidden:
        shutil.rmtree(path, ignore_errors=True)
    if any(map(os.path.exists, hidden)):
        raise VolumeUnavailable("the model is deleted, but some of its files remain; the next deletion tries again")


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a name if it contains only the lock file, whose lock the caller holds."""
    # A publisher takes no lock: rmdir, unlike a rename, never removes a version that was published just now.
    with contextlib.suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()


def _check_unprotected(inventory: Inventory, name: ModelId, version: str) -> None:
    if not version:
        raise ModelInService("this deletes the whole model, even if callers still use it; confirm with force=true")
    release = inventory.release(name)
    roles = () if release is None else protected_versions(release).get(version, ())
    if "former" in roles and len(roles) == 1:
        raise ModelInService(
            "a rollback would make this version stable; release others first, or confirm with force=true"
        )
    if roles:
        raise ModelInService(
            f"this version is live, as {', '.join(roles)}; release another first, or confirm with force=true"
        )
