"""Import of a model from a TorchServe archive to the volume. Nothing in the archive is executed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from intentctl.torchserve.archive import Archive, ZipArchive
from intentctl.torchserve.model_files import LIMITS, MOST_BYTES, with_algorithm
from intentctl.torchserve.tar_archive import GZIP, TarArchive
from predictor.model.intent_model import IntentModel
from predictor.model.loader import Loader
from predictor.model.servable import INTENT, check_servable
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.model_store import MANIFEST_FILE, ModelStore, folders_of
from serving.volume.open_folder import OpenFile
from serving.volume.publishing import publish

_NAME: Final = re.compile(r"model-(.+)\.(?:mar|tar\.gz|tgz)")
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# Bytes for handlers, and for other files that archives hold beside the model.
_OTHER_FILES: Final = 64 << 20


def read_archive(path: Path) -> Archive:
    """Return the archive at ``path``.

    Raises:
        InvalidModelFile: the file is too large, is not a regular file, or is not an archive that can be read.
        OSError: the file cannot be read.
    """
    with OpenFile("the archive", os.open(path, _READ)) as file:
        most = sum(MOST_BYTES.values()) + _OTHER_FILES
        data = file.read(most)
    return TarArchive(data, most) if data.startswith(GZIP) else ZipArchive(data)


def id_of(path: Path, archive: Archive) -> ModelId:
    """Return the model's id: the one in the file name, such as ``model-<id>.mar``, else the name in the archive.

    Raises:
        InvalidModelId: the name is not a valid id.
        ModelUnusable: the archive does not name the model.
    """
    named = _NAME.fullmatch(path.name)
    return parse_model_id(named[1] if named else archive.model_name())


def import_model(archive: Archive, root: Path, model_id: ModelId, *, replace: bool) -> IntentModel:
    """Load the archive's model, publish it with sums below ``root`` for the predictor, and return it.

    Raises:
        ModelUnusable: a predictor could not load the model; the message says why. Nothing is published.
        ChecksumMismatch: the archive's manifest describes other files.
        ModelExists: the model exists, and ``replace`` is false.
        OSError: the volume cannot be written to.
    """
    files = archive.read(MOST_BYTES)
    with TemporaryDirectory() as staging:
        folder = Path(staging).joinpath(*folders_of(model_id))
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        # Load with the archive's own manifest first, so that its sums, if it has any, are checked.
        loader = Loader(ModelStore(Path(staging)), LIMITS)
        model = loader.load(model_id, loader.fingerprint(model_id))
        manifest = with_algorithm(Manifest.parse(files[MANIFEST_FILE]), INTENT)
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        publish(folder, root, model_id, replace=replace, check=check_servable, settle_seconds=0.0)
    return model
