"""Loads a model from its folder. Blocks on the file system and on the processor: call it from a thread."""

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

# A copy that arrives file by file mixes two models for a while; its files follow each other in less time than this.
_SETTLING_SECONDS: Final = 1.0

# Size of a vocabulary in memory, dictionary and strings, relative to disk: measured on vocabularies of real models.
_VOCABULARY_GROWTH: Final = 10


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Maximum sizes of the files that are read, in bytes."""

    weights: int = 256 << 20
    vocabulary: int = 64 << 20


class Loader:
    """Reads and checks models of one store.

    Args:
        store: store that holds the models.
        limits: maximum sizes of the files that are read.
        comparison: compares files of loaded models; not closed here. By default, a thread compares them.
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
        """Vocabularies in memory, by the digest of their files: tenants with equal files share one."""

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files, all of which exist.

        Raises:
            ModelNotFound: no model has this id.
            ModelIncomplete: files are missing.
            InvalidModelFile: a file is larger than its limit.
            ServingError: as in :meth:`ModelStore.fingerprint`.
        """
        fingerprint = self._store.fingerprint(model_id)
        if fingerprint.missing:
            raise ModelIncomplete(f"the model has no {' and no '.join(fingerprint.missing)} yet; finish its upload")
        # Check sizes before memory is reserved for the model.
        for name, file in zip(MODEL_FILES, fingerprint.files, strict=True):
            if file is not None and file.size > self._limits_of_files[name]:
                raise InvalidModelFile(
                    f"{name} of the model is larger than the limit of {self._limits_of_files[name]} bytes"
                )
        return fingerprint

    async def changed(self, known: Sequence[tuple[ModelId, Fingerprint]]) -> Sequence[bool]:
        """Return for each model whether its files may differ from these; true also if that is unknown.

        Raises:
            TimeoutError: the comparison takes too long.
        """
        return await self._comparison.changed(
            [
                self._store.known_files(model_id, dict(zip(MODEL_FILES, fingerprint.files, strict=True)))
                for model_id, fingerprint in known
            ]
        )

    def estimate(self, fingerprint: Fingerprint) -> int:
        """Return an estimate of the bytes of memory that the model will take, at least those of its weights."""
        manifest, weights, vocabulary = (file.size if file else 0 for file in fingerprint.files)
        return manifest + weights + _VOCABULARY_GROWTH * vocabulary

    def load(self, model_id: ModelId, fingerprint: Fingerprint, *, replacing: bool = False) -> IntentModel:
        """Return the model whose files have the identity ``fingerprint``.

        Args:
            model_id: the model.
            fingerprint: the result of :meth:`fingerprint`.
            replacing: whether an older copy serves meanwhile, so that there is time to see whether an upload is over.

        Raises:
            FilesChanged: the files changed in the meantime; or, when replacing, they changed very recently and have no
                checksums that tell one copy from a mix of two.
            ChecksumMismatch: a file is not the one that the manifest describes.
            ModelUnusable: the files are not a model; the message says which file and why.
            ServingError: as in :meth:`ModelStore.read`.
        """
        files = self._store.read_copy(model_id, fingerprint, self._limits_of_files)
        manifest = Manifest.parse(files[MANIFEST_FILE])
        for name in (WEIGHTS_FILE, VOCABULARY_FILE):
            _verify(manifest, name, files[name])
        if replacing and not manifest.files and _age_seconds(fingerprint) < _SETTLING_SECONDS:
            raise FilesChanged("the model's files have just changed; they are loaded once they no longer change")
        network = FoldedNetwork.from_arrays(read_state_dict(files[WEIGHTS_FILE]))
        return IntentModel(model_id, manifest, self._vocabulary(files[VOCABULARY_FILE]), network)

    def _vocabulary(self, data: bytes) -> Vocabulary:
        digest = hashlib.sha256(data).digest()
        vocabulary = self._vocabularies.get(digest)
        if vocabulary is None:
            vocabulary = self._vocabularies[digest] = read_vocabulary(data)
        return vocabulary


def _age_seconds(fingerprint: Fingerprint) -> float:
    """Return the seconds since the last change of any of the files, by the clock of this machine."""
    youngest = max(file.changed_nanoseconds for file in fingerprint.files if file is not None)
    return (time.time_ns() - youngest) / 1e9


def _verify(manifest: Manifest, name: str, data: bytes) -> None:
    expected = manifest.files.get(name)
    if expected is not None and (len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256):
        raise ChecksumMismatch(f"{name} is not the file that manifest.json describes; publish the model again")
