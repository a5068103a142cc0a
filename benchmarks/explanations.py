"""Cost of an explanation: plain and explained predictions by turns, in the model and over gRPC.

``python -m benchmarks.explanations --help``. Measures a sample model, and a model with n-grams that is built here from
the training texts of CLINC150. The weights of the latter are random; they cost as much as trained ones. The documents
are texts of the test sets.
"""

from __future__ import annotations

import argparse
import json
import os

# As in the predictor; NumPy reads this variable when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from predictor.model.network import IntentNetwork
from predictor.model.tokenizer import Tokenizer
from serving.client import IntentClient, Query
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from tests.end_to_end.processes import stack

NGRAMS: Final = "basic_english+words:2+characters:3-5"
WANTED_RATIO: Final = 1.5
"""Upper bound on the time of a prediction with an explanation, as a multiple of a plain one."""
WANTED_MICROSECONDS: Final = 60.0
"""Upper bound on the median time of a plain prediction in a model with n-grams, measured in the model."""

_MODEL_WITH_NGRAMS: Final = "with-ngrams"
_DIMENSIONS: Final = 64
_SAMPLE_OF_DOCUMENTS: Final = 11


@dataclass(frozen=True, slots=True)
class Figures:
    """Median microseconds per document, from the fastest round, which other work on the machine disturbed least."""

    plain: float
    explained: float

    @property
    def ratio(self) -> float:
        """Time of a prediction with an explanation, as a multiple of a plain one."""
        return self.explained / self.plain

    def as_dict(self) -> dict[str, float]:
        """Return the figures for JSON."""
        return {name: round(value, 1) for name, value in asdict(self).items()} | {"ratio": round(self.ratio, 2)}


def make_model_with_ngrams(folder: Path, texts: Sequence[str], labels: Sequence[str], tokens: int) -> None:
    """Write a model whose vocabulary consists of the most frequent tokens and n-grams of ``texts``."""
    tokenizer = Tokenizer.parse(NGRAMS)
    seen: Counter[str] = Counter()
    for text in texts:
        words = tokenizer.tokens(text)
        seen.update({*words, *tokenizer.ngrams(words)})
    vocabulary = ["<unk>", *(token for token, _ in seen.most_common(tokens - 1))]
    network = IntentNetwork.of_sizes(len(vocabulary), (_DIMENSIONS, len(labels)))
    torch.nn.init.normal_(network.embedding.weight)
    manifest = {
        "Algorithm": "intent-classification",
        "Tokenizer": str(tokenizer),
        "classes": {str(index): label for index, label in enumerate(labels)},
    }
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "model.pth")
    torch.save({token: index for index, token in enumerate(vocabulary)}, folder / "vocab.pth")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def by_turns(
    plain: Callable[[str], object], explained: Callable[[str], object], documents: Sequence[str], rounds: int
) -> Figures:
    """Measure both functions by turns and return their figures."""
    medians: list[tuple[float, float]] = []
    for _ in range(rounds):
        times: tuple[list[int], list[int]] = ([], [])
        for number, document in enumerate(documents):
            # The first call fills the processor's caches with data that the second needs too, so the order alternates.
            for which in (number % 2, 1 - number % 2):
                ask = explained if which else plain
                started = time.perf_counter_ns()
                ask(document)
                times[which].append(time.perf_counter_ns() - started)
        medians.append((statistics.median(times[0]) / 1e3, statistics.median(times[1]) / 1e3))
    return Figures(min(first for first, _ in medians), min(second for _, second in medians))


def at_the_model(model: IntentModel, documents: Sequence[str], rounds: int) -> Figures:
    """Return the cost of answers directly from a model."""
    return by_turns(
        lambda document: model.predict([Query("m", document)]),
        lambda document: model.predict([Query("m", document, explain=())]),
        documents,
        rounds,
    )


def over_grpc(client: IntentClient, model_id: str, documents: Sequence[str], rounds: int) -> Figures:
    """Return the cost to one caller of answers from a frontend with a predictor behind it."""
    return by_turns(
        lambda document: client.predict(model_id, document),
        lambda document: client.predict(model_id, document, explain=()),
        documents,
        rounds,
    )


def measure(sample: Path, data: Path, workplace: Path, *, rounds: int, tokens: int, transport: str) -> dict[str, Any]:
    """Return all figures, by model and by place of measurement."""
    rows = json.loads(data.read_text())
    documents = [text for part in ("test", "oos_test") for text, _ in rows[part]][::_SAMPLE_OF_DOCUMENTS]
    volume = workplace / "models"
    shutil.copytree(sample, volume / sample.name)
    labels = [*dict.fromkeys(label for _, label in rows["train"]), "oos"]
    make_model_with_ngrams(volume / _MODEL_WITH_NGRAMS, [text for text, _ in rows["train"]], labels, tokens)

    figures: dict[str, Any] = {}
    ids = [ModelId(sample.name), ModelId(_MODEL_WITH_NGRAMS)]
    loader = Loader(ModelStore(volume), FileLimits())
    for model_id in ids:
        model = loader.load(model_id, loader.fingerprint(model_id))
        figures[model_id] = {
            "tokenizer": str(model.tokenizer),
            "model": at_the_model(model, documents, rounds).as_dict(),
        }
    with stack(volume, workplace, transport=transport) as running, IntentClient(running.frontend.address) as client:
        for model_id in ids:
            client.predict(model_id, documents[0])
            asked = documents[:: max(1, len(documents) // 200)]
            figures[model_id]["grpc"] = over_grpc(client, model_id, asked, max(1, rounds // 4)).as_dict()
    return figures


def main() -> None:
    """Print the figures as JSON, and exit with code 1 if one misses its bound."""
    shared = Path(os.environ.get("INTENT_SHARED", "../shared"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sample", type=Path, default=Path("models/clinc150"), help="folder of a model without n-grams"
    )
    parser.add_argument("--data", type=Path, default=shared / "datasets" / "clinc150" / "data_full.json")
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds, of which the fastest counts")
    parser.add_argument("--tokens", type=int, default=28_000, help="number of tokens of the model with n-grams")
    parser.add_argument("--transport", choices=["http2", "grpcio"], default="grpcio")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as workplace:
        figures = measure(
            flags.sample,
            flags.data,
            Path(workplace),
            rounds=flags.rounds,
            tokens=flags.tokens,
            transport=flags.transport,
        )
    json.dump(figures, sys.stdout, indent=2)
    sys.stdout.write("\n")
    missed = [
        f"{model_id}, {place}: {places[place]['ratio']} times a plain prediction, wanted: at most {WANTED_RATIO}"
        for model_id, places in figures.items()
        for place in ("model", "grpc")
        if places[place]["ratio"] > WANTED_RATIO
    ]
    plain = figures[_MODEL_WITH_NGRAMS]["model"]["plain"]
    if plain > WANTED_MICROSECONDS:
        missed.append(f"{_MODEL_WITH_NGRAMS}: {plain} us a plain prediction, wanted: at most {WANTED_MICROSECONDS:g}")
    raise SystemExit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
