"""Trains one model as a user does, and measures it on the test split."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.quality.results import Run
from evaluation.metrics import threshold_curve
from predictor.intent_model import IntentModel
from predictor.loader import FileLimits, Loader
from serving.model_id import ModelId
from serving.model_store import ModelStore
from serving.prediction import Prediction, Query
from training.data import OUT_OF_SCOPE, Example

_MODEL: Final = ModelId("measured")
_THRESHOLDS: Final = np.linspace(0.0, 1.0, 201)
_MOST_SECONDS: Final = 1800


def train_and_measure(data: Path, options: Sequence[str], test: Sequence[Example], seed: int, folder: Path) -> Run:
    """Return the figures of a model trained by ``intentctl train`` with ``options``.

    Args:
        data: what it is trained on.
        options: of the command, beside those of this function.
        test: what it is measured on: nothing is chosen by it.
        seed: of the training.
        folder: of the models; the model stays in it.
    """
    started = time.monotonic()
    summary = _trained(data, [*options, "--seed", str(seed), "--model-dir", str(folder)])
    seconds = time.monotonic() - started
    model = _loaded(folder)
    texts = [row.text for row in test]
    plain, explained = _median_microseconds(model, texts)
    return Run(
        seed=seed,
        in_scope=summary["test_accuracy_in_scope"],
        in_scope_without_threshold=summary["test_accuracy_in_scope_without_threshold"],
        out_of_scope_recall=summary["test_recall_out_of_scope"],
        calibration_error=summary["test_calibration_error"],
        temperature=summary["temperature"],
        threshold=summary["threshold"],
        training_seconds=seconds,
        folder_bytes=sum(path.stat().st_size for path in (folder / _MODEL).iterdir()),
        microseconds=plain,
        explained_microseconds=explained,
        explanation_error=_explanation_error(model, texts),
        curve=_curve(model, test),
    )


def _trained(data: Path, options: Sequence[str]) -> Any:
    command = [
        sys.executable,
        "-m",
        "intentctl",
        "train",
        str(data),
        "--model-id",
        _MODEL,
        "--force",
        "--json",
        *options,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if ended.returncode:
        raise SystemExit(f"intentctl train ended with {ended.returncode}:\n{ended.stderr}")
    return json.loads(ended.stdout)


def _loaded(folder: Path) -> IntentModel:
    loader = Loader(ModelStore(folder), FileLimits())
    return loader.load(_MODEL, loader.fingerprint(_MODEL))


def _predictions(model: IntentModel, queries: Sequence[Query]) -> list[Prediction]:
    return [outcome for outcome in model.predict(queries) if isinstance(outcome, Prediction)]


def _median_microseconds(model: IntentModel, texts: Sequence[str]) -> tuple[float, float]:
    """Return the p50 of one document, without and with explanation, in turn so that the machine's drift hits both."""
    plain = [[Query(_MODEL, text)] for text in texts]
    explained = [[Query(_MODEL, text, explain=())] for text in texts]
    times: tuple[list[float], list[float]] = [], []
    for pair in zip(plain, explained, strict=True):
        for found, queries in zip(times, pair, strict=True):
            found.append(_microseconds(model.predict, queries))
    return statistics.median(times[0]), statistics.median(times[1])


def _microseconds(ask: Callable[[Sequence[Query]], object], queries: Sequence[Query]) -> float:
    started = time.perf_counter_ns()
    ask(queries)
    return (time.perf_counter_ns() - started) / 1e3


def _explanation_error(model: IntentModel, texts: Sequence[str]) -> float:
    """Return the most that the parts of a logit differ from it: as told, and as the network gives it."""
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
