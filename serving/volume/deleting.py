"""Takes models from the volume. Blocks.

What goes is renamed first, to a name that no reader looks at, so that nobody sees half of it. Then its files go. The
folder of a name goes with its last version, unless it holds anything else, as a release.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Final

from serving.domain.errors import InvalidModelId, ModelInService, ModelNotFound, ModelUnusable, VolumeUnavailable
from serving.domain.model_id import ModelId, parse_model_name, reference_of, versioned
from serving.domain.releases.changes import protected_versions
from serving.volume.inventory import Inventory
from serving.volume.model_store import MANIFEST_FILE, ModelStore
from serving.volume.release_writing import LOCK_FILE, release_lock, writing

HIDDEN: Final = ".deleted-"


def delete(root: Path, model_id: ModelId, *, force: bool = False) -> None:
    """Remove a model, a version of a name, or with ``force`` a name with all that it has.

    Raises:
        VolumeUnavailable: some of the files are still on the volume, though the model is gone.
        ServingError: as :func:`take_away` does. The model is still there.
    """
    take_away(root, model_id, force=force)
    remove_hidden(root)


def models_in(root: Path, model_id: ModelId) -> list[ModelId]:
    """Return the models that the deletion of ``model_id`` removes: itself, or the versions of a name, sorted.

    Every folder below a name counts as a version, though its manifest may be damaged or missing: an engine may hold an
    older copy.

    Raises:
        ModelNotFound: there is no folder of this name.
        ModelUnusable: it is no folder.
        VolumeUnavailable: the volume does not answer.
    """
    name, version = reference_of(model_id)
    if version:
        return [model_id]
    with writing(), os.scandir(root / name) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
        has_own = (root / name / MANIFEST_FILE).exists()
    versions: list[ModelId] = []
    for folder in folders:
        with contextlib.suppress(InvalidModelId):
            versions.append(versioned(name, parse_model_name(folder)))
    return [name, *versions] if has_own or not versions else versions


def take_away(root: Path, model_id: ModelId, *, force: bool = False) -> None:
    """Take a model out of the sight of all readers, by one rename; :func:`remove_hidden` removes its files.

    Raises:
        ModelNotFound: there is no such model.
        ModelInService: it is protected, and ``force`` is false: a model in a folder of its own, a whole name, a version
            that is live, or the former stable one that a rollback needs.
        ModelUnusable: its folder is a link to another one.
        ReleaseConflict: the release is being changed at the moment.
        VolumeReadOnly: the volume cannot be written to from here.
        VolumeUnavailable: the volume does not answer.
    """
    name, version = reference_of(model_id)
    with release_lock(root, name), writing():
        folder = root / name / version if version else root / name
        if folder.is_symlink():
            raise ModelUnusable("the model's folder is a link to another one; name that one, or remove the link")
        if not folder.is_dir():
            raise ModelNotFound("no model has this runId")
        if not force:
            _check_unprotected(Inventory(ModelStore(root)), name, version)
        folder.rename(root / f"{HIDDEN}{uuid.uuid4().hex}")
        if version:
            _remove_if_empty(root / name)


def remove_hidden(root: Path) -> None:
    """Remove the files of models that were taken away, those that an interrupted deletion has left among them.

    Raises:
        VolumeUnavailable: the volume does not answer, or some of the files are still on it.
    """
    with writing():
        hidden = [entry.path for entry in os.scandir(root) if entry.name.startswith(HIDDEN)]
    for path in hidden:
        shutil.rmtree(path, ignore_errors=True)
    if any(map(os.path.exists, hidden)):
        raise VolumeUnavailable("the model is gone, but some of its files are left; the next deletion tries again")


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a name that holds nothing but its lock, which the caller holds."""
    # A publisher takes no lock: rmdir, unlike a rename, removes nothing that was published in this moment.
    with contextlib.suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [LOCK_FILE]:
            (folder / LOCK_FILE).unlink()
            folder.rmdir()


def _check_unprotected(inventory: Inventory, name: ModelId, version: str) -> None:
    if not version:
        raise ModelInService("this takes the whole model away, whoever asks for it now; say so with force")
    release = inventory.release(name)
    roles = () if release is None else protected_versions(release).get(version, ())
    if "former" in roles and len(roles) == 1:
        raise ModelInService("a rollback would make this version stable; release others first, or say so with force")
    if roles:
        raise ModelInService(
            f"this version is live, as {', '.join(roles)}; release another first, or say so with force"
        )
