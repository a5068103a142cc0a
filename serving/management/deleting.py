"""Takes models from the volume. Blocks.

What goes is renamed first, to a name that no reader looks at, so that nobody sees half of it. Then its files go.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Final

from serving.errors import ModelInService, ModelNotFound, ModelUnusable, VolumeUnavailable
from serving.management.inventory import Inventory
from serving.model_id import ModelId, reference_of
from serving.model_store import ModelStore
from serving.releases.changes import protected_versions
from serving.releases.writing import release_lock, writing

HIDDEN: Final = ".deleted-"


def delete(root: Path, model_id: ModelId, *, force: bool = False) -> None:
    """Remove a model, a version of a name, or with ``force`` a name with all that it has.

    Raises:
        ModelNotFound: there is no such model.
        ModelInService: it is protected, and ``force`` is false: a model in a folder of its own, a whole name, a version
            that is live, or the former stable one that a rollback needs.
        ModelUnusable: its folder is a link to another one.
        ReleaseConflict: the release is being changed at the moment.
        VolumeReadOnly: the volume cannot be written to from here.
        VolumeUnavailable: the volume does not answer, or some of the files are still on it, though the model is gone.
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
    _remove_hidden(root)


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


def _remove_hidden(root: Path) -> None:
    """Remove what is hidden, and with it what a deletion that was cut off has left."""
    with writing():
        hidden = [entry.path for entry in os.scandir(root) if entry.name.startswith(HIDDEN)]
    for path in hidden:
        shutil.rmtree(path, ignore_errors=True)
    if any(map(os.path.exists, hidden)):
        raise VolumeUnavailable("the model is gone, but some of its files are left; the next deletion tries again")
