"""Export of a model of the volume to an archive that TorchServe serves with our handler."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from intentctl.torchserve.archive import MAR_MANIFEST, mar_manifest, write_archive
from intentctl.torchserve.model_files import LIMITS, MOST_BYTES, with_algorithm
from predictor.model.intent_model import NO_INDEX, IntentModel
from predictor.model.loader import Loader
from predictor.model.servable import INTENT, INTENT_AT_TORCHSERVE, check_servable
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.confidence import Confidence
from serving.domain.errors import ModelExists, ModelUnusable
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.volume.model_store import MANIFEST_FILE, VOCABULARY_FILE, WEIGHTS_FILE, ModelStore
from serving.volume.publishing import publish

HANDLER_FILE: Final = "intent_handler.py"
TOKENS_FILE: Final = "vocabulary.json"
CONFIDENCE_FILE: Final = "confidence.json"
# Files of the package that the handler needs. With __init__.py, this package is found before any other package of the
# same name.
PREDICTOR_FILES: Final = (
    "__init__.py",
    "model/__init__.py",
    "model/tokenizer.py",
    "model/normalization.py",
    "model/ngrams.py",
    "model/layer_names.py",
)

_VERSION_OF_NONE: Final = "1.0"
_STAGING: Final = ".staging-"


@dataclass(frozen=True, slots=True)
class Source:
    """A valid model of the volume, as it is at TorchServe."""

    model: IntentModel
    vocabulary: Vocabulary
    confidence: Confidence
    files: dict[str, bytes]
    """The model's three files, by name; the manifest is the one for TorchServe."""


def read_source(root: Path, model_id: ModelId) -> Source:
    """Return the model ``model_id`` below ``root``, which a predictor could serve unchanged.

    Raises:
        ModelUnusable: a predictor could not load the model, or it is for another engine; the message says why.
        FilesChanged: the model's files are being written.
        ServingError: as :meth:`~predictor.model.loader.Loader.load_at_rest` raises.
    """
    store = ModelStore(root)
    loader = Loader(store, LIMITS)
    model, fingerprint = loader.load_at_rest(model_id)
    contents = store.read_copy(model_id, fingerprint, MOST_BYTES)
    manifest = Manifest.parse(contents[MANIFEST_FILE])
    if manifest.algorithm not in (INTENT, INTENT_AT_TORCHSERVE):
        raise ModelUnusable(f"the model's Algorithm is {manifest.algorithm}; only models of {INTENT} can be exported")
    contents[MANIFEST_FILE] = with_algorithm(manifest, INTENT_AT_TORCHSERVE).to_json().encode()
    return Source(model, read_vocabulary(contents[VOCABULARY_FILE]), manifest.confidence, contents)


def archive_of(source: Source, name: str) -> bytes:
    """Return the archive in which the model is called ``name``. Identical models yield identical bytes."""
    return write_archive(
        {
            **source.files,
            TOKENS_FILE: _tokens(source),
            # Written with all its fields, so that the handler needs no defaults.
            CONFIDENCE_FILE: source.confidence.model_dump_json().encode(),
            **{f"predictor/{name}": resources("predictor").joinpath(name).read_bytes() for name in PREDICTOR_FILES},
            HANDLER_FILE: resources("intentctl.torchserve").joinpath("handler.py").read_bytes(),
            MAR_MANIFEST: mar_manifest(name, source.model.version or _VERSION_OF_NONE, HANDLER_FILE, WEIGHTS_FILE),
        }
    )


def archive_path(model_store: Path, model_id: ModelId) -> Path:
    """Return the path at which TorchServe, and the frontend that registers the model there, expect its archive."""
    return model_store / f"model-{model_id}.mar"


def check_free(path: Path, published: Path | None) -> None:
    """Check that neither the archive nor the model's folder exists, before anything is written.

    Raises:
        ModelExists: one of them exists.
    """
    if path.exists():
        raise ModelExists(f"an archive {path.name} already exists; replace it with --replace, or choose another id")
    if published is not None and published.exists():
        raise ModelExists(f"a model {published.name} already exists; replace it with --replace, or choose another id")


def put_in_place(path: Path, archive: bytes) -> None:
    """Write an archive through to the disk, and put it in place by one rename, so that no reader sees a partial file.

    Raises:
        OSError: the folder cannot be written to. Any former archive is still in place.
    """
    staging = path.with_name(f"{_STAGING}{uuid.uuid4().hex}")
    try:
        with staging.open("xb") as file:
            file.write(archive)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def publish_source(source: Source, root: Path, model_id: ModelId, *, replace: bool) -> None:
    """Publish the model below ``root`` for TorchServe, so that the frontend sends its queries there.

    Raises:
        ModelExists: the model exists, and ``replace`` is false.
        OSError: the volume cannot be written to.
    """
    with TemporaryDirectory() as folder:
        for name, content in source.files.items():
            (Path(folder) / name).write_bytes(content)
        publish(Path(folder), root, model_id, replace=replace, check=check_servable, settle_seconds=0.0)


def _tokens(source: Source) -> bytes:
    """Return the handler's data on tokens, as our reader reads them, so that the handler needs no torchtext."""
    default = source.vocabulary.default_index
    document = {
        "tokenizer": str(source.model.tokenizer),
        "default_index": None if default == NO_INDEX else default,
        "indices": dict(source.vocabulary.indices),
    }
    return json.dumps(document).encode()
