"""A fake of a model store on a network volume, which can hang and fail; the file systems of the tests do neither."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.releases.release import Release
from serving.volume.file_identity import FileIdentity
from serving.volume.model_store import Fingerprint, ModelStore
from tests.fakes.gate import Gate


class FakeModelStore(ModelStore):
    """A real model store that counts how often its files are checked and read.

    With a ``failure``, checks of model files and of release files raise it. The check of a model's files waits at
    ``look_gate``; a release that was read is held back at ``release_gate``.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looks: Counter[ModelId] = Counter()
        self.reads: Counter[ModelId] = Counter()
        self.release_looks: Counter[ModelId] = Counter()
        self.failure: Exception | None = None
        self.look_gate = Gate()
        self.release_gate = Gate()

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        self.looks[model_id] += 1
        self.look_gate.go_through()
        self._fail()
        return super().fingerprint(model_id)

    def read_manifest(self, model_id: ModelId) -> Manifest:
        self.reads[model_id] += 1
        return super().read_manifest(model_id)

    def release_file(self, name: ModelId) -> FileIdentity | None:
        self.release_looks[name] += 1
        self._fail()
        return super().release_file(name)

    def read_release(self, name: ModelId) -> Release:
        release = super().read_release(name)
        self.release_gate.go_through()
        return release

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
