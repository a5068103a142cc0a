"""Loads a model from its folder. Blocks on the file system and on the processor: call it from a thread."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from predictor.model.files.allowance import BYTES_PER_BYTE, LEAST_BYTES, Allowance, NeedsMoreMemory, TooManyItems
from predictor.model.files.tensors import StateDict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.layers import LayerShapes
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.errors import (
    ChecksumMismatch,
    FilesUnsettled,
    InvalidManifest,
    InvalidModelFile,
    ModelIncomplete,
    ModelTooLarge,
    ModelUnusable,
)
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId
from serving.volume.freshness.comparison import FileComparison, ThreadComparison
from serving.volume.model_store import (
    MANIFEST_FILE,
    MODEL_FILES,
    SEALED_FILES,
    SETTLE_SECONDS,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Fingerprint,
    ModelStore,
)

WORKSPACE: Final = 48 << 20
"""Bytes that a load may take in addition to those of its files and its model: for descriptions, directories and tables.

The memory that the predictor keeps for itself includes this much for each loading thread, and for one slow load;
further slow loads reserve it.
"""

MOST_LOADING_BYTES: Final = 4 << 30
"""Bytes of memory beyond which a model is not loaded even if no budget is set."""

# Size of a vocabulary in memory, dictionary and strings, relative to disk: measured on vocabularies of real models.
_VOCABULARY_GROWTH: Final = 10


# Maximum number of bytes of memory that one byte of a manifest takes while it is parsed.
_MANIFEST_GROWTH: Final = 16


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
        workspace: bytes that a load may take in addition to those that it announces.
    """

    def __init__(
        self,
        store: ModelStore,
        limits: FileLimits,
        comparison: FileComparison | None = None,
        *,
        workspace: int = WORKSPACE,
    ) -> None:
        self._store = store
        self._workspace = workspace
        self._comparison = comparison or ThreadComparison()
        self._limits_of_files = {
            MANIFEST_FILE: MAX_MANIFEST_BYTES,
            WEIGHTS_FILE: limits.weights,
            VOCABULARY_FILE: limits.vocabulary,
        }
        self._vocabularies: WeakValueDictionary[bytes, Vocabulary] = WeakValueDictionary()
        """Vocabularies in memory, by the digest of their files: tenants with identical files share one."""

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files, all of which exist.

        Raises:
            ModelNotFound: no model has this id.
            ModelIncomplete: files are missing.
            ModelUnusable: the model has no weights here: it is a pipeline, or on another server.
            InvalidModelFile: a file is larger than its limit.
            ServingError: as in :meth:`ModelStore.fingerprint`.
        """
        fingerprint = self._store.fingerprint(model_id)
        if fingerprint.missing:
            self._expect_to_need_files(model_id)
            raise ModelIncomplete(f"the model has no {' and no '.join(fingerprint.missing)} yet; finish its upload")
        # Check sizes before memory is reserved for the model.
        for name, file in zip(MODEL_FILES, fingerprint.files, strict=True):
            if file is not None and file.size > self._limits_of_files[name]:
                raise InvalidModelFile(
                    f"{name} of the model is larger than the limit of {self._limits_of_files[name]} bytes"
                )
        return fingerprint

    def _expect_to_need_files(self, model_id: ModelId) -> None:
        """Raise ModelUnusable if the model needs no file but its manifest, so that no predictor loads it."""
        try:
            manifest = self._store.read_manifest(model_id)
        except (ModelIncomplete, InvalidManifest):
            return  # an upload may be under way
        if manifest.pipeline is not None:
            raise ModelUnusable(
                "the model is a pipeline, which has no weights of its own; ask a frontend, or the models of its steps"
            )
        if manifest.is_elsewhere:
            raise ModelUnusable("the model is on another server, and has no weights here; ask a frontend")

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

    def load(self, model_id: ModelId, fingerprint: Fingerprint, *, settled: bool = True) -> IntentModel:
        """Return the model whose files have the identity ``fingerprint``, whatever time and memory that takes.

        The arguments and errors are those of :meth:`loading`.
        """
        steps = self.loading(model_id, fingerprint, settled=settled)
        try:
            while True:
                if next(steps) > MOST_LOADING_BYTES:
                    raise ModelTooLarge("the model takes more memory while it is loaded than any machine should give")
        except StopIteration as end:
            model: IntentModel = end.value
            return model

    def load_at_rest(self, model_id: ModelId) -> tuple[IntentModel, Fingerprint]:
        """Return the model and the identity of its files, which must be unchanged for a moment unless sums prove them.

        For programs that load a model once. The predictor remembers which files have settled.

        Raises:
            FilesChanged: the files changed in the meantime.
            ServingError: as :meth:`fingerprint` and :meth:`loading` do.
        """
        fingerprint = self.fingerprint(model_id)
        try:
            return self.load(model_id, fingerprint, settled=False), fingerprint
        except FilesUnsettled:
            time.sleep(SETTLE_SECONDS)
            return self.load(model_id, fingerprint), fingerprint

    def loading(
        self,
        model_id: ModelId,
        fingerprint: Fingerprint,
        *,
        settled: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> Generator[int, None, IntentModel]:
        """Load the model whose files have the identity ``fingerprint``, step by step; return it at the end.

        Each step begins with the bytes of memory that the load takes from then on, which are yielded before they are
        allocated. Up to :data:`WORKSPACE` are not counted: every loading thread has this much in addition.

        Args:
            model_id: the model.
            fingerprint: the result of :meth:`fingerprint`.
            settled: whether the files may be taken for one copy without a proof. A copy that arrives file by file mixes
                two models for a while.
            check: called again and again; raises an error to end the load.

        Raises:
            FilesChanged: the files changed in the meantime.
            FilesUnsettled: the files are not settled, and the manifest has no sums that match all of them.
            ChecksumMismatch: a file is not the one that the manifest describes.
            ModelUnusable: the files are not a model; the message says which file and why.
            ServingError: as in :meth:`ModelStore.read`.
        """
        least = self.estimate(fingerprint)
        yield least
        files = self._store.read_copy(model_id, fingerprint, self._limits_of_files)
        check()
        yield max(
            least, sum(map(len, files.values())) + self._beyond_workspace(_MANIFEST_GROWTH * len(files[MANIFEST_FILE]))
        )
        try:
            manifest = _verified_manifest(files, check)
        except (InvalidManifest, ChecksumMismatch) as error:
            if settled:
                raise
            raise _unsettled() from error
        if not settled and not all(name in manifest.files for name in SEALED_FILES):
            raise _unsettled()
        held = sum(map(len, files.values()))
        weights = StateDict(files.pop(WEIGHTS_FILE), check)
        shapes = LayerShapes.of(weights.shapes)
        yield max(least, held + weights.memory + self._beyond_workspace(FoldedNetwork.folding_memory(shapes)))
        check()
        network = FoldedNetwork.from_arrays(weights.arrays())
        del weights
        check()
        vocabulary = yield from self._vocabulary(
            files.pop(VOCABULARY_FILE), shapes.tokens, least=least, held=network.size, check=check
        )
        check()
        return IntentModel(model_id, manifest, vocabulary, network)

    def _beyond_workspace(self, size: int) -> int:
        return max(0, size - self._workspace)

    def _vocabulary(
        self, data: bytes, rows: int, *, least: int, held: int, check: Callable[[], None]
    ) -> Generator[int, None, Vocabulary]:
        """Read the vocabulary of a network with this many rows, while ``held`` bytes are in memory."""
        digest = hashlib.sha256(data).digest()
        vocabulary = self._vocabularies.get(digest)
        if vocabulary is not None:
            return vocabulary
        # One more, because the experimental vocabulary of torchtext 0.9 has the name of a token after its tokens.
        most = rows + 1
        try:
            try:
                enough = self._workspace + _VOCABULARY_GROWTH * len(data)
                vocabulary = read_vocabulary(data, Allowance(enough, most_items=most, check=check))
            except NeedsMoreMemory:
                enough = LEAST_BYTES + BYTES_PER_BYTE * len(data)
                yield max(least, held + len(data) + self._beyond_workspace(enough))
                vocabulary = read_vocabulary(data, Allowance(enough, most_items=most, check=check))
        except TooManyItems as error:
            raise InvalidModelFile(
                f"vocab.pth has more tokens than the {rows} rows of model.pth; publish them together"
            ) from error
        self._vocabularies[digest] = vocabulary
        return vocabulary


def _unsettled() -> FilesUnsettled:
    return FilesUnsettled("the model's files may still be arriving; try again when they no longer change")


def _verified_manifest(files: dict[str, bytes], check: Callable[[], None]) -> Manifest:
    """Take the manifest out of ``files``, and verify the others. Raises InvalidManifest, ChecksumMismatch."""
    manifest = Manifest.parse(files.pop(MANIFEST_FILE))
    for name in SEALED_FILES:
        check()
        _verify(manifest, name, files[name])
    return manifest


def _verify(manifest: Manifest, name: str, data: bytes) -> None:
    expected = manifest.files.get(name)
    if expected is not None and (len(data) != expected.size or hashlib.sha256(data).hexdigest() != expected.sha256):
        raise ChecksumMismatch(f"{name} is not the file that manifest.json describes; publish the model again")
