"""A volume of many tenants, made of a few different models, and who asks for which."""

from __future__ import annotations

import bisect
import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from predictor.intent_model import IntentModel
from predictor.loader import FileLimits, Loader
from serving.model_id import ModelId, parse_model_id
from serving.model_store import MODEL_FILES, ModelStore


def make_tenants(sample: Path, volume: Path, *, tenants: int, models: int) -> list[ModelId]:
    """Lay out ``tenants`` folders below ``volume``, of ``models`` different models, and return their ids.

    The models are ``sample`` with the labels moved on by one each time: an answer of the wrong model has the wrong
    label. Tenants of one model share its files by hard links, so that thousands take no space.
    """
    manifest = json.loads((sample / "manifest.json").read_text())
    labels = list(manifest["classes"].values())
    kinds = volume.parent / "kinds"
    for kind in range(models):
        shutil.copytree(sample, kinds / str(kind))
        moved = labels[kind:] + labels[:kind]
        manifest["classes"] = {str(index): label for index, label in enumerate(moved)}
        (kinds / str(kind) / "manifest.json").write_text(json.dumps(manifest))
    ids = [parse_model_id(f"tenant-{number}") for number in range(tenants)]
    for number, model_id in enumerate(ids):
        folder = volume / model_id
        folder.mkdir(parents=True)
        for name in MODEL_FILES:
            (folder / name).hardlink_to(kinds / str(number % models) / name)
    return ids


def load_directly(volume: Path, model_ids: Sequence[ModelId]) -> dict[ModelId, IntentModel]:
    """Return the models themselves, to compare answers with."""
    loader = Loader(ModelStore(volume), FileLimits())
    return {model_id: loader.load(model_id, loader.fingerprint(model_id)) for model_id in model_ids}


def zipf(items: Sequence[ModelId], exponent: float, seed: int) -> Iterator[ModelId]:
    """Yield items for ever, the one at rank r with a probability in proportion to ``1 / r ** exponent``."""
    chance = random.Random(seed)
    shares = list(itertools.accumulate(1 / rank**exponent for rank in range(1, len(items) + 1)))
    while True:
        yield items[bisect.bisect_left(shares, chance.random() * shares[-1])]
