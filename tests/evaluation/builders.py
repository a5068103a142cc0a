"""Builders of model folders that answer as a test specifies and that the predictor can load, and of answers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.answers import Answer, Answers
from predictor.model.vocabulary import Vocabulary
from training.torchtext_file import vocabulary_file


def word_model(
    root: Path, model_id: str, labels: Sequence[str], words: Mapping[str, Mapping[str, float]], **confidence: Any
) -> None:
    """Write a model that answers a given word with the given probabilities, and any other with equal ones.

    Args:
        root: the model folder.
        model_id: the id of the model.
        labels: the labels, in the order of the outputs.
        words: the probability of each label for each word; the probabilities of one word add up to 1.
        confidence: the keys of ``Confidence`` in the manifest.
    """
    rows = [[0.0] * len(labels)]
    rows += [[math.log(max(shares.get(label, 0.0), 1e-30)) for label in labels] for shares in words.values()]
    weights = io.BytesIO()
    torch.save(
        {
            "embedding.weight": torch.tensor(rows),
            "fc1.weight": torch.eye(len(labels)),
            "fc1.bias": torch.zeros(len(labels)),
        },
        weights,
    )
    manifest = {
        "Algorithm": "intent-classification",
        "ModelVersion": "1.0",
        "Tokenizer": "basic_english",
        "classes": {str(index): label for index, label in enumerate(labels)},
    } | ({"Confidence": confidence} if confidence else {})
    folder = root / model_id
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(weights.getvalue())
    (folder / "vocab.pth").write_bytes(vocabulary_file(Vocabulary.of(["<unk>", *words], default_index=0)))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def answers_of(
    rows: Sequence[Answer],
    *,
    labels: frozenset[str] | None = None,
    fallback: str = "oos",
    threshold: float | None = None,
    model_id: str = "m",
) -> Answers:
    """Return the answers of a model."""
    return Answers(model_id, "1.0", labels, fallback, threshold, tuple(rows))


def plain(label: str, score: float = 0.5) -> Answer:
    """Return an answer with the best label, which did not fall back."""
    return Answer(label, label, score, fell_back=False)


def fell_back(best: str, score: float = 0.1, fallback: str = "oos") -> Answer:
    """Return an answer that fell back from the best label."""
    return Answer(fallback, best, score, fell_back=True)
