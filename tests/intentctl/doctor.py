"""Builders for the tests of the doctor: a model without a fault, and ways to break one part of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from intentctl.doctor.examine import examine
from intentctl.doctor.finding import Finding
from serving.domain.answer_counts import CONFIDENCE_BINS
from serving.domain.model_id import ModelId
from serving.volume.publishing import publish
from tests.fakes.torchtext import fake_torchtext, modern_vocab
from tests.predictor.builders import saved

MODEL_ID = ModelId("patient")
LABELS = ("weather", "music", "oos")
WORDS = ("rain", "sun", "wind", "song", "band", "radio", "banana", "gravel", "zebra", "quantum", "album", "cold")
DIMENSIONS = 4


@dataclass
class Model:
    """A model without a fault. Change the part that is to be wrong, then call :meth:`write`."""

    tokens: list[str] = field(default_factory=lambda: ["<unk>", *WORDS])
    default: int | None = 0
    vocabulary: Any = None
    """Vocabulary in place of the one made of ``tokens`` and ``default``; ``None``: none."""
    manifest: dict[str, Any] = field(
        default_factory=lambda: {
            "Algorithm": "intent-classification",
            "ModelVersion": "1.0",
            "Tokenizer": "basic_english+normalized",
            "classes": {str(index): label for index, label in enumerate(LABELS)},
            "Confidence": {"temperature": 1.5, "threshold": 0.5, "fallback": "oos"},
            "Baseline": baseline(LABELS),
        }
    )
    weights: dict[str, torch.Tensor] | None = None
    sealed: bool = True

    @property
    def labels(self) -> list[str]:
        return list(self.manifest["classes"].values())

    def write(self, root: Path) -> Path:
        """Publish the model below ``root``; return its folder."""
        source = root / ".source"
        source.mkdir(parents=True, exist_ok=True)
        if self.weights is None:
            self.weights = weights_of(len(self.tokens), len(self.manifest["classes"]))
        (source / "manifest.json").write_text(json.dumps(self.manifest))
        (source / "model.pth").write_bytes(saved(self.weights))
        with fake_torchtext():
            (source / "vocab.pth").write_bytes(saved(self.vocabulary or modern_vocab(self.tokens, self.default)))
        manifest = publish(source, root, MODEL_ID, replace=True)
        folder = root / MODEL_ID
        if not self.sealed:
            (folder / "manifest.json").write_text(manifest.with_files({}).to_json())
        return folder

    def name(self, labels: Sequence[str]) -> None:
        """Set the labels of the outputs, also in the baseline."""
        self.manifest["classes"] = {str(index): label for index, label in enumerate(labels)}
        self.manifest["Baseline"] = baseline(labels)


def weights_of(rows: int, classes: int) -> dict[str, torch.Tensor]:
    """Return weights with which each token but the first votes for one label, in turn."""
    embedding = torch.zeros(rows, classes)
    for row in range(rows):
        embedding[row, row % classes] = 1.0
    embedding[0] = 0.01
    return {
        "embedding.weight": embedding,
        "fc1.weight": 6.0 * torch.eye(classes),
        "fc1.bias": torch.linspace(0.0, 0.1, classes),
    }


def baseline(labels: Sequence[str], documents: int = 300) -> dict[str, Any]:
    """Return the counts of a validation without a fault."""
    each, rest = divmod(documents, len(labels))
    counts: dict[str, int] = {}
    for number, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + each + (rest if not number else 0)
    return {
        "documents": documents,
        "empty_documents": 3,
        "tokens": 6 * documents,
        "unknown_tokens": documents // 10,
        "fallbacks": documents // 20,
        "confidence": [0] * (CONFIDENCE_BINS - 1) + [documents],
        "labels": counts,
    }


def found(root: Path) -> dict[str, str]:
    """Return the severity of each check that has a finding."""
    return {finding.check: str(finding.severity) for finding in findings(root)}


def findings(root: Path) -> Sequence[Finding]:
    return examine(root, MODEL_ID).findings


def problem(root: Path, check: str) -> str:
    """Return the problem and the advice that a check reports."""
    (finding,) = (finding for finding in findings(root) if finding.check == check)
    return f"{finding.problem}. {finding.advice}"


def change(folder: Path, keys: Mapping[str, Any]) -> None:
    """Change keys of the published manifest as an editor would."""
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(document | keys))
