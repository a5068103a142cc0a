"""Inputs of a forecast: request counts from a file, and model sizes from a model folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from intentctl.capacity.errors import BadCounts, NothingMeasured
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint, ModelStore

_COLUMNS: Final = ["model", "requests"]
_MOST_REQUESTS: Final = 1e18
# Most models that are loaded to be measured; each load takes a few milliseconds.
_MOST_LOADED: Final = 32


def read_counts(path: Path) -> dict[str, float]:
    """Return the requests for each model from a CSV file with the columns ``model,requests``.

    Raises:
        BadCounts: the file cannot be read, or one of its rows is invalid.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            counts = dict(_rows(path, reader))
    except OSError as error:
        raise BadCounts(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadCounts(f"{path.name} is not UTF-8; save the file in that encoding") from error
    except csv.Error as error:
        raise BadCounts(f"{path.name}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error
    if not any(counts.values()):
        raise BadCounts(f"{path.name} has no requests; write the columns model,requests and one row per model")
    return counts


def _rows(path: Path, reader: Any) -> Iterator[tuple[str, float]]:
    header: list[str] = next(reader, [])
    if header != _COLUMNS:
        raise BadCounts(f"{path.name}, line 1: the header must be model,requests; it is {','.join(header)!r}")
    seen: set[str] = set()
    for row in filter(None, reader):
        place = f"{path.name}, line {reader.line_num}"
        if len(row) != len(_COLUMNS):
            raise BadCounts(f"{place}: {len(row)} columns, but the header has {len(_COLUMNS)}")
        model, text = row
        if model in seen:
            raise BadCounts(f"{place}: {model!r} appears twice; keep one row")
        seen.add(model)
        yield model, _count(place, text)


def _count(place: str, text: str) -> float:
    try:
        count = float(text)
    except ValueError as error:
        raise BadCounts(f"{place}: {text!r} is not a number of requests") from error
    if not 0 <= count <= _MOST_REQUESTS:
        raise BadCounts(f"{place}: {text!r} is not a number of requests")
    return count


def measured_sizes(model_dir: Path) -> dict[ModelId, int]:
    """Return the bytes of memory that each model of a folder takes, as the predictor counts them.

    Up to 32 models, spread evenly over the folder, are loaded and measured. The sizes of the others are estimated from
    their files and scaled by the ratio between measured and estimated sizes. Models that cannot be served are left out.

    Raises:
        NothingMeasured: no model of the folder can be loaded.
        ModuleNotFoundError: the packages of the predictor are not installed.
        ServingError: the folder cannot be read.
    """
    from predictor.model.loader import FileLimits, Loader  # noqa: PLC0415 - imports NumPy, which a client need not have

    store = ModelStore(model_dir)
    loader = Loader(store, FileLimits())
    prints = dict(_fingerprints(loader, store.model_ids()))
    loaded = dict(_loaded_sizes(loader, prints))
    if not loaded:
        raise NothingMeasured(f"no model of {model_dir} can be loaded and measured; give --model-bytes")
    estimates = {model_id: loader.estimate(fingerprint) for model_id, fingerprint in prints.items()}
    ratio = sum(loaded.values()) / sum(estimates[model_id] for model_id in loaded)
    return {model_id: loaded.get(model_id, max(1, round(estimates[model_id] * ratio))) for model_id in prints}


def _fingerprints(loader: Any, model_ids: Sequence[ModelId]) -> Iterator[tuple[ModelId, Fingerprint]]:
    for model_id in model_ids:
        try:
            yield model_id, loader.fingerprint(model_id)
        except ServingError:
            continue  # `intentctl models` shows what is wrong with it


def _loaded_sizes(loader: Any, prints: Mapping[ModelId, Fingerprint]) -> Iterator[tuple[ModelId, int]]:
    every = sorted(prints)
    for model_id in every[:: max(1, math.ceil(len(every) / _MOST_LOADED))]:
        try:
            yield model_id, loader.load(model_id, prints[model_id]).size
        except ServingError:
            continue
