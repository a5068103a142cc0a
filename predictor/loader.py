"""From a model's folder to a loaded model. Blocks on the file system and on the processor: call it from a thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from predictor.files.tensors import read_state_dict
from predictor.folded_network import FoldedNetwork
from predictor.intent_model import IntentModel
from predictor.vocabulary import Vocabulary, read_vocabulary
from serving.errors import ChecksumMismatch, ModelIncomplete
from serving.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.model_id import ModelId
from serving.model_store import MANIFEST_FILE, VOCABULARY_FILE, WEIGHTS_FILE, Fingerprint, ModelStore

# A vocabulary in memory, dictionary and strings, against its bytes on disk: measured on vocabularies of real models.
_VOCABULARY_GROWTH: Final = 8


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The largest files that are read, in bytes."""

    weights: int = 256 << 20
    vocabulary: int = 64 << 20


class Loader:
    """Reads and checks models of one store."""

    def __init__(self, store: ModelStore, limits: FileLimits) -> None:
        self._store = store
        self._limits = limits
        self._vocabularies: WeakValueDictionary[bytes, Vocabulary] = WeakValueDictionary()
        """Those in memory, by the digest of their files: tenants with equal files share one."""

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files; all of them are there.

        Raises:
            ModelNotFound: no model has this id.
            ModelIncomplete: files are missing.
            ServingError: as :meth:`ModelStore.fingerprint` tells.
        """
        fingerprint = self._store.fingerprint(model_id)
        if fingerprint.missing:
            raise ModelIncomplete(f"the model has no {' and no '.join(fingerprint.missing)} yet; finish its upload")
        return fingerprint

    def estimate(self, fingerprint: Fingerprint) -> int:
        """Return about how many bytes of memory the model will take, at least those of its weights."""
        manifest, weights, vocabulary = (file.size if file else 0 for file in fingerprint.files)
        return manifest + weights + _VOCABULARY_GROWTH * vocabulary

    def load(self, model_id: ModelId, fingerprint: Fingerprint) -> IntentModel:
        """Return the model whose files have the identity ``fingerprint``.

        Raises:
            FilesChanged: they changed in the meantime.
            ChecksumMismatch: a file is not the one that the manifest describes.
            ModelUnusable: they are not a model; the message says which file and why.
            ServingError: as :meth:`ModelStore.read` tells.
        """
        limits = {
            MANIFEST_FILE: MAX_MANIFEST_BYTES,
            WEIGHTS_FILE: self._limits.weights,
            VOCABULARY_FILE: self._limits.vocabulary,
        }
        files = self._store.read_copy(model_id, fingerprint, limits)
        manifest = Manifest.parse(files[MANIFEST_FILE])
        for name in (WEIGHTS_FILE, VOCABULARY_FILE):
            _verify(manifest, name, files[name])
        network = FoldedNetwork.from_arrays(read_state_dict(files[WEIGHTS_FILE]))
        return IntentModel(model_id, manifest, self._vocabulary(files[VOCABULARY_FILE]), network)

    def _vocabulary(self, data: bytes) -> Vocabulary:
        digest = hashlib.sha256(data).digest()
        vocabulary = self._vocabularies.get(digest)
        if vocabulary is None:
            vocabulary = self._vocabularies[digest] = read_vocabulary(data)
        return vocabulary


def _verify(manifest: Manifest, name: str, data: bytes) -> None:
    expected = manifest.files.get(name)
    if expected is not None and (len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256):
        raise ChecksumMismatch(f"{name} is not the file that manifest.json describes; publish the model again")
