"""A fake source of models without files, so that a load can hang, fail or change at any moment a test chooses."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from serving.domain.errors import FilesUnsettled, ModelNotFound, ServingError
from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint
from tests.builders import fingerprint_of
from tests.fakes.gate import Gate

Made = TypeVar("Made")

SIZE: Final = 10
"""Size of a model in bytes, unless a test sets another."""


@dataclass(eq=False)
class FakeModel:
    """A model that answers no query."""

    model_id: ModelId
    fingerprint: Fingerprint
    size: int


class FakeSource(Generic[Made]):
    """Models of made-up files. Ids that are not in ``files`` are unknown; ``faults`` replace models.

    Args:
        make: returns a model of an id, the identity of its files and its size in bytes.
    """

    def __init__(self, make: Callable[[ModelId, Fingerprint, int], Made]) -> None:
        self.files: dict[ModelId, Fingerprint | Exception] = {}
        self.faults: dict[Fingerprint, Exception] = {}
        self.unsealed: set[Fingerprint] = set()
        """Files that nothing proves to be one copy."""
        self.sizes: dict[Fingerprint, int] = {}
        self.estimates: dict[Fingerprint, int] = {}
        self.steps: dict[Fingerprint, Sequence[int]] = {}
        """Bytes of the steps of a load."""
        self.busy: set[Fingerprint] = set()
        """Files whose loads take processor time until they are no longer here."""
        self.looks: Counter[ModelId] = Counter()
        self.loads: Counter[ModelId] = Counter()
        self.most_at_once = 0
        """Largest number of simultaneous loads of the same files."""
        self.look_gate = Gate()
        self.load_gate = Gate()
        self._make = make
        self._loading: Counter[tuple[ModelId, Fingerprint]] = Counter()
        self._lock = threading.Lock()

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        with self._lock:
            self.looks[model_id] += 1
        self.look_gate.go_through()
        files = self.files.get(model_id, ModelNotFound("no model has this runId"))
        if isinstance(files, Exception):
            raise files
        return files

    async def changed(self, known: Sequence[tuple[ModelId, Fingerprint]]) -> Sequence[bool]:
        return await asyncio.to_thread(lambda: [self._has_changed(*each) for each in known])

    def _has_changed(self, model_id: ModelId, fingerprint: Fingerprint) -> bool:
        try:
            return self.fingerprint(model_id) != fingerprint
        except ServingError:
            return True

    def estimate(self, fingerprint: Fingerprint) -> int:
        return self.estimates.get(fingerprint, SIZE)

    def loading(
        self,
        model_id: ModelId,
        fingerprint: Fingerprint,
        *,
        settled: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> Generator[int, None, Made]:
        yield from self.steps.get(fingerprint, ())
        while fingerprint in self.busy:
            check()
        return self.load(model_id, fingerprint, settled=settled)

    def load(self, model_id: ModelId, fingerprint: Fingerprint, *, settled: bool = True) -> Made:
        copy = (model_id, fingerprint)
        with self._lock:
            self.loads[model_id] += 1
            self._loading[copy] += 1
            self.most_at_once = max(self.most_at_once, self._loading[copy])
        try:
            self.load_gate.go_through()
            fault = self.faults.get(fingerprint)
            if fault is not None:
                raise fault
            if not settled and fingerprint in self.unsealed:
                raise FilesUnsettled("the files may still be arriving")
            return self._make(model_id, fingerprint, self.sizes.get(fingerprint, SIZE))
        finally:
            with self._lock:
                self._loading[copy] -= 1


def source_of(models: Mapping[str, Made]) -> FakeSource[Made]:
    """Return a source of models that exist already, by id."""
    source: FakeSource[Made] = FakeSource(lambda model_id, *_: models[model_id])
    source.files = {ModelId(name): fingerprint_of(1) for name in models}
    return source
