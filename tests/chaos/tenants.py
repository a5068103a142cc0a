"""Tenants of the chaos run: small models in many versions, whose right answers are known without the product."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import torch

from serving.domain.model_id import ModelId, parse_model_id
from tests.predictor.builders import saved

WORDS: Final = [f"word{number}" for number in range(100)]

_LABELS, _DIMENSIONS = 8, 12


class Answer(NamedTuple):
    """An answer as a caller sees it."""

    label: str
    score: float
    version: str


class Version:
    """One version of a tenant's model.

    Args:
        model_id: id of the model.
        number: number of the version, which determines all weights and labels.
    """

    def __init__(self, model_id: ModelId, number: int) -> None:
        self.name = f"{number}"
        self._labels = [f"{model_id}/{number}/{index}" for index in range(_LABELS)]
        # The seed of Python's hash would differ in each run.
        digits = np.random.default_rng([number, *model_id.encode()])
        self._embedding = digits.normal(size=(len(WORDS), _DIMENSIONS)).astype(np.float32)
        self._weight = (3 * digits.normal(size=(_LABELS, _DIMENSIONS))).astype(np.float32)
        self._bias = digits.normal(size=_LABELS).astype(np.float32)

    def answer(self, document: str) -> Answer:
        """Return the right answer to a document of :data:`WORDS`."""
        mean = self._embedding[[WORDS.index(word) for word in document.split()]].mean(axis=0, dtype=np.float64)
        logits = self._weight.astype(np.float64) @ mean + self._bias
        exponentials = np.exp(logits - logits.max())
        best = int(exponentials.argmax())
        return Answer(self._labels[best], float(exponentials[best] / exponentials.sum()), self.name)

    def files(self, *, sealed: bool) -> Mapping[str, bytes]:
        """Return the content of the model's files; a ``sealed`` manifest has their sums."""
        state = {"embedding.weight": self._embedding, "fc1.weight": self._weight, "fc1.bias": self._bias}
        files = {
            "model.pth": saved({name: torch.from_numpy(array) for name, array in state.items()}),
            "vocab.pth": saved(WORDS),
        }
        manifest: dict[str, object] = {
            "Algorithm": "intent-classification",
            "ModelVersion": self.name,
            "Tokenizer": "basic_english",
            "classes": {str(index): label for index, label in enumerate(self._labels)},
        }
        if sealed:
            manifest["Files"] = {
                name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            }
        return {**files, "manifest.json": json.dumps(manifest).encode()}


class Tenant:
    """A model in all versions that were ever begun to be written."""

    def __init__(self, number: int) -> None:
        self.model_id = parse_model_id(f"tenant-{number:02}")
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._versions: dict[str, Version] = {}
        self.current = self.next_version()

    def next_version(self) -> Version:
        """Return a new version, whose answers are right from now on."""
        version = Version(self.model_id, next(self._numbers))
        with self._lock:
            self._versions[version.name] = version
        return version

    def is_right(self, document: str, answer: Answer) -> bool:
        """Return whether one version, the one that the answer names, gives this answer to the document."""
        with self._lock:
            version = self._versions.get(answer.version)
        if version is None:
            return False
        right = version.answer(document)
        return answer.label == right.label and abs(answer.score - right.score) < 1e-3


def some_document(chance: random.Random) -> str:
    """Return a document of a few words that each model knows."""
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))
