from __future__ import annotations

from pathlib import Path

from benchmarks.explanations import NGRAMS, Figures, at_the_model, by_turns, make_model_with_ngrams
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore

TEXTS = ["make a timer", "what is my balance", "make a timer please"]


def test_the_model_that_is_measured_has_ngrams_and_explains_itself(tmp_path: Path) -> None:
    make_model_with_ngrams(tmp_path / "made", TEXTS, ["timer", "balance"], 60)
    loader = Loader(ModelStore(tmp_path), FileLimits())
    model = loader.load(ModelId("made"), loader.fingerprint(ModelId("made")))
    assert str(model.tokenizer) == NGRAMS
    (answer,) = model.predict([Query("made", "make a timer", explain=())])
    assert isinstance(answer, Prediction)
    assert answer.explanation is not None
    assert len(answer.explanation.tokens) > 3
    figures = at_the_model(model, TEXTS, rounds=2)
    assert figures.plain > 0
    assert figures.as_dict().keys() == {"plain", "explained", "ratio"}


def test_both_ways_are_asked_alike_and_each_is_first_by_turns() -> None:
    asked: list[str] = []
    by_turns(lambda text: asked.append(f"plain {text}"), lambda text: asked.append(f"explained {text}"), ["a", "b"], 2)
    assert asked == ["plain a", "explained a", "explained b", "plain b"] * 2


def test_the_ratio_is_in_plain_predictions() -> None:
    assert Figures(plain=40.0, explained=50.0).as_dict() == {"plain": 40.0, "explained": 50.0, "ratio": 1.25}
