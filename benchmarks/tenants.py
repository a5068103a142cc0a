"""A volume of many tenants with a few different models, and the order in which tenants are queried."""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import torch

from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, VOCABULARY_FILE, WEIGHTS_FILE, ModelStore
from serving.volume.publishing import seal
from training.torchtext_file import vocabulary_file

EMBEDDING: Final = "embedding.weight"


def make_tenants(sample: Path, volume: Path, *, tenants: int, models: int) -> list[ModelId]:
    """Create ``tenants`` folders below ``volume``, with ``models`` different models, and return their ids.

    Tenants with the same model share its files by hard links, so that thousands of them take no space.
    """
    kinds = volume.parent / "kinds"
    for kind in range(models):
        _write_variant(sample, kinds / str(kind), kind)
    ids = [parse_model_id(f"tenant-{number}") for number in range(tenants)]
    for number, model_id in enumerate(ids):
        folder = volume / model_id
        folder.mkdir(parents=True)
        for name in MODEL_FILES:
            (folder / name).hardlink_to(kinds / str(number % models) / name)
    return ids


def _write_variant(sample: Path, folder: Path, kind: int) -> None:
    """Write a model of the size of ``sample`` with its own weights, vocabulary and labels.

    Each kind shifts the labels by one, so that an answer from the wrong model has the wrong label. Each kind has its
    own order of tokens, and one token in ten is a word that no other kind has.
    """
    chance = random.Random(kind)
    vocabulary = read_vocabulary((sample / VOCABULARY_FILE).read_bytes())
    order = chance.sample(range(len(vocabulary)), len(vocabulary))
    tokens = [vocabulary.tokens[index] for index in order]
    default = None if vocabulary.default_index is None else order.index(vocabulary.default_index)
    for index in chance.sample(range(len(tokens)), len(tokens) // 10):
        if index != default:
            tokens[index] = f"{kind}:{tokens[index]}"
    state = torch.load(sample / WEIGHTS_FILE, weights_only=True)
    state[EMBEDDING] = state[EMBEDDING][[*order, *range(len(order), len(state[EMBEDDING]))]]
    manifest = json.loads((sample / MANIFEST_FILE).read_text())
    labels = list(manifest["classes"].values())
    moved = labels[kind % len(labels) :] + labels[: kind % len(labels)]
    manifest["classes"] = {str(index): label for index, label in enumerate(moved)}
    # The sums of the sample are not those of its variant.
    manifest.pop("Files", None)
    folder.mkdir(parents=True)
    (folder / VOCABULARY_FILE).write_bytes(vocabulary_file(Vocabulary.of(tokens, default)))
    torch.save(state, folder / WEIGHTS_FILE)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    seal(folder)


def load_directly(volume: Path, model_ids: Sequence[ModelId]) -> dict[ModelId, IntentModel]:
    """Return the models themselves, as a reference for answers."""
    loader = Loader(ModelStore(volume), FileLimits())
    return {model_id: loader.load(model_id, loader.fingerprint(model_id)) for model_id in model_ids}


def zipf(items: Sequence[ModelId], exponent: float, seed: int) -> Iterator[ModelId]:
    """Yield items without end, the item at rank r with a probability proportional to ``1 / r ** exponent``."""
    chance = random.Random(seed)
    shares = list(itertools.accumulate(1 / rank**exponent for rank in range(1, len(items) + 1)))
    while True:
        yield items[bisect.bisect_left(shares, chance.random() * shares[-1])]
