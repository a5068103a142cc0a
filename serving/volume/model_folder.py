"""The model folder itself: the root of the volume.

Its path may be a link that a release script or git-sync swaps. So the path is resolved for each operation, and
everything in one operation is read below the same real folder.
"""

from __future__ import annotations

import os

from serving.domain.errors import ModelFolderUnavailable


def resolved(path: str) -> str:
    """Return the real path of the folder that ``path`` leads to now.

    Raises:
        ModelFolderUnavailable: ``path`` leads nowhere, or cannot be followed.
    """
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise _unavailable() from error


def enter(path: str) -> None:
    """Check that ``path`` leads to a folder whose entries can be reached.

    Raises:
        ModelFolderUnavailable: there is no such folder, it cannot be accessed, or the volume does not answer.
    """
    try:
        os.stat(os.path.join(path, os.curdir))
    except OSError as error:
        raise _unavailable() from error


def _unavailable() -> ModelFolderUnavailable:
    return ModelFolderUnavailable("the folder of all models cannot be read at the moment; try again")
