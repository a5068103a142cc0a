"""From a model's folder to a loaded model. Blocks on the file system and on the processor: call it from a thread."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from predictor.model.files.tensors import read_state_dict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.errors import ChecksumMismatch, FilesChanged, InvalidModelFile, ModelIncomplete
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId
from serving.volume.freshness.comparison import FileComparison, ThreadComparison
from serving.volume.model_store import (
    MANIFEST_FILE,
    MODEL_FILES,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Fingerprint,
    ModelStore,
)

# A copy that arrives file by file has parts of two models in it; between its files there is less time than this.
_SETTLING_SECONDS: Final = 1.0

# A vocabulary in memory, dictionary and strings, against its bytes on disk: measured on vocabularies of real models.
_VOCABULARY_GROWTH: Final = 10


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The largest files that are read, in bytes."""

    weights: int = 256 << 20
    vocabulary: int = 64 << 20


class Loader:
    """Reads and checks models of one store.

    Args:
        store: where models are.
        limits: the largest files that are read.
        comparison: compares files of models that are loaded; not closed here. Left out, a thread does.
    """

    def __init__(self, store: ModelStore, limits: FileLimits, comparison: FileComparison | None = None) -> None:
        self._store = store
        self._comparison = comparison or ThreadComparison()
        self._limits_of_files = {
            MANIFEST_FILE: MAX_MANIFEST_BYTES,
            WEIGHTS_FILE: limits.weights,
            VOCABULARY_FILE: limits.vocabulary,
        }
        self._vocabularies: WeakValueDictionary[bytes, Vocabulary] = WeakValueDictionary()
        """Those in memory, by the digest of their files: tenants with equal files share one."""

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files; all of them are there.

        Raises:
            ModelNotFound: no model has this id.
            ModelIncomplete: files are missing.
            InvalidModelFile: a file is larger than what is read.
            ServingError: as :meth:`ModelStore.fingerprint` tells.
        """
        fingerprint = self._store.fingerprint(model_id)
        if fingerprint.missing:
            raise ModelIncomplete(f"the model has no {' and no '.join(fingerprint.missing)} yet; finish its upload")
        # Before memory is made for it.
        for name, file in zip(MODEL_FILES, fingerprint.files, strict=True):
            if file is not None and file.size > self._limits_of_files[name]:
                raise InvalidModelFile(
                    f"{name} of the model is larger than the {self._limits_of_files[name]} bytes that are read"
                )
        return fingerprint

    async def changed(self, known: Sequence[tuple[ModelId, Fingerprint]]) -> Sequence[bool]:
        """Return of each model whether its files may be others than these; where it cannot be told, too.

        Raises:
            TimeoutError: that takes too long.
        """
        return await self._comparison.changed(
            [
                self._store.known_files(model_id, dict(zip(MODEL_FILES, fingerprint.files, strict=True)))
                for model_id, fingerprint in known
            ]
        )

    def estimate(self, fingerprint: Fingerprint) -> int:
        """Return about how many bytes of memory the model will take, at least those of its weights."""
        manifest, weights, vocabulary = (file.size if file else 0 for file in fingerprint.files)
        return manifest + weights + _VOCABULARY_GROWTH * vocabulary

    def load(self, model_id: ModelId, fingerprint: Fingerprint, *, replacing: bool = False) -> IntentModel:
        """Return the model whose files have the identity ``fingerprint``.

        Args:
            model_id: the model.
            fingerprint: what :meth:`fingerprint` returned.
            replacing: whether an older copy serves meanwhile, so that there is time to see whether an upload is over.

        Raises:
            FilesChanged: they changed in the meantime, or only just, and have no sums to tell one copy from two.
            ChecksumMismatch: a file is not the one that the manifest describes.
            ModelUnusable: they are not a model; the message says which file and why.
            ServingError: as :meth:`ModelStore.read` tells.
        """
        files = self._store.read_copy(model_id, fingerprint, self._limits_of_files)
        manifest = Manifest.parse(files[MANIFEST_FILE])
        for name in (WEIGHTS_FILE, VOCABULARY_FILE):
            _verify(manifest, name, files[name])
        if replacing and not manifest.files and _age_seconds(fingerprint) < _SETTLING_SECONDS:
            raise FilesChanged("the model's files changed only just; they are loaded once they stay as they are")
        network = FoldedNetwork.from_arrays(read_state_dict(files[WEIGHTS_FILE]))
        return IntentModel(model_id, manifest, self._vocabulary(files[VOCABULARY_FILE]), network)

    def _vocabulary(self, data: bytes) -> Vocabulary:
        digest = hashlib.sha256(data).digest()
        vocabulary = self._vocabularies.get(digest)
        if vocabulary is None:
            vocabulary = self._vocabularies[digest] = read_vocabulary(data)
        return vocabulary


def _age_seconds(fingerprint: Fingerprint) -> float:
    """Return the seconds since the last of the files changed, by the clock of this machine."""
    youngest = max(file.changed_nanoseconds for file in fingerprint.files if file is not None)
    return (time.time_ns() - youngest) / 1e9


def _verify(manifest: Manifest, name: str, data: bytes) -> None:
    expected = manifest.files.get(name)
    if expected is not None and (len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256):
        raise ChecksumMismatch(f"{name} is not the file that manifest.json describes; publish the model again")
