"""Training of models as by a user, and measurement on the test split."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.explanations import at_the_model
from benchmarks.quality.results import Run
from evaluation.metrics import threshold_curve
from peers.programs import ROOT
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore
from training.data import OUT_OF_SCOPE, Example

_MODEL: Final = ModelId("measured")
_THRESHOLDS: Final = np.linspace(0.0, 1.0, 201)
_MOST_SECONDS: Final = 1800
_SAMPLE_OF_TEXTS: Final = 11
_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True)
class Training:
    """Summary that ``intentctl train`` printed for a model, and its running time."""

    folder: Path
    """Folder of models that contains only this model."""
    seed: int
    summary: Mapping[str, Any]
    seconds: float


def train(data: Path, options: Sequence[str], seed: int, folder: Path, checkout: Path = ROOT) -> Training:
    """Train a model as a user does.

    Args:
        data: file with the training data.
        options: options of ``intentctl train``, in addition to those that this function sets.
        seed: seed of the training.
        folder: folder of models; the model stays in it.
        checkout: root of the project whose ``intentctl train`` is run.
    """
    arguments = [
        str(data.resolve()),
        "--model-id",
        _MODEL,
        "--seed",
        str(seed),
        "--model-dir",
        str(folder.resolve()),
        "--json",
        *options,
    ]
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "intentctl", "train", *arguments],
        capture_output=True,
        text=True,
        timeout=_MOST_SECONDS,
        cwd=checkout,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"intentctl train ended with {ended.returncode}:\n{ended.stderr}")
    return Training(folder, seed, json.loads(ended.stdout), time.monotonic() - started)


def measure(training: Training, test: Sequence[Example]) -> Run:
    """Return the figures of a trained model on test rows, which influence no choice of the training."""
    summary = training.summary
    model = _loaded(training.folder)
    texts = [row.text for row in test]
    cost = at_the_model(model, texts[::_SAMPLE_OF_TEXTS], _ROUNDS)
    return Run(
        seed=training.seed,
        in_scope=summary["test_accuracy_in_scope"],
        in_scope_without_threshold=summary["test_accuracy_in_scope_without_threshold"],
        out_of_scope_recall=summary["test_recall_out_of_scope"],
        calibration_error=summary["test_calibration_error"],
        temperature=summary["temperature"],
        threshold=summary["threshold"],
        training_seconds=training.seconds,
        folder_bytes=sum(path.stat().st_size for path in (training.folder / _MODEL).iterdir()),
        microseconds=cost.plain,
        explained_microseconds=cost.explained,
        explanation_error=_explanation_error(model, texts),
        curve=_curve(model, test),
    )


def _loaded(folder: Path) -> IntentModel:
    loader = Loader(ModelStore(folder), FileLimits())
    return loader.load(_MODEL, loader.fingerprint(_MODEL))


def _predictions(model: IntentModel, queries: Sequence[Query]) -> list[Prediction]:
    return [outcome for outcome in model.predict(queries) if isinstance(outcome, Prediction)]


def _explanation_error(model: IntentModel, texts: Sequence[str]) -> float:
    """Return the largest difference between a logit, as reported or as the network gives it, and its parts' sum."""
    worst = 0.0
    logits = model.logits(texts)
    for text, row in zip(texts, logits, strict=True):
        (answer,) = _predictions(model, [Query(_MODEL, text, explain=())])
        assert answer.explanation is not None
        (label,) = answer.explanation.labels
        whole = label.bias + math.fsum(label.contributions)
        worst = max(worst, abs(whole - label.logit), abs(whole - float(row[model.labels.index(label.label)])))
    return worst


def _curve(model: IntentModel, test: Sequence[Example]) -> tuple[tuple[float, float], ...]:
    answers = _predictions(model, [Query(_MODEL, row.text, threshold=0.0) for row in test])
    points = threshold_curve(
        [row.label for row in test],
        [answer.label for answer in answers],
        [answer.score for answer in answers],
        _THRESHOLDS,
        {OUT_OF_SCOPE},
    )
    return tuple(
        (point.out_of_scope_recall, point.in_scope_accuracy)
        for point in points
        if point.out_of_scope_recall is not None and point.in_scope_accuracy is not None
    )
