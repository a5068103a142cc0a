"""A fake intent model, which answers when and how a test says; a real model can neither be held up nor fail."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from predictor.model.tokenizer import Tokenizer
from predictor.model.traffic_counter import TrafficCounter
from serving.domain.errors import NonFiniteLogits
from serving.domain.prediction import Outcome, Query
from tests.builders import a_prediction
from tests.fakes.gate import Gate
from tests.fakes.model_source import SIZE


@dataclass(eq=False)
class FakeIntentModel:
    """A model that answers with the document; it keeps the documents and the name of the thread of each call."""

    size: int = SIZE
    labels: tuple[str, ...] = ("a", "b")
    version: str = "1.0"
    tokenizer: Tokenizer = field(default_factory=lambda: Tokenizer.parse("basic_english"))
    failure: Exception | None = None
    asked: list[list[str]] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    gate: Gate = field(default_factory=Gate)

    def predict(self, queries: Sequence[Query], counter: TrafficCounter | None = None) -> list[Outcome]:
        self.asked.append([query.document for query in queries])
        self.threads.append(threading.current_thread().name)
        self.gate.go_through()
        if self.failure is not None:
            raise self.failure
        if counter is not None:
            for _ in queries:
                counter.count(1, 0, 0, 0.5, is_empty=False, fell_back=False)
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Outcome:
        return NonFiniteLogits("no number") if query.document == "nan" else a_prediction(query)
