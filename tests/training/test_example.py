from __future__ import annotations

from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Fallback, Prediction, ScoredLabel
from serving.domain.releases.example import check_answer, example_query
from serving.volume.model_store import ModelStore
from tests.conftest import ROOT
from tests.samples import SAMPLES
from training.data import Example
from training.example import chosen_example

IN, OUT = Example("what is my balance", "balance"), Example("what does a quark weigh", "oos")


def answer(label: str, score: float, fallback: Fallback | None = None) -> Prediction:
    return Prediction(label, score, (), "m", "1", fallback)


def test_the_text_of_which_the_model_is_surest_is_chosen() -> None:
    other = Example("transfer it", "transfer")
    chosen = chosen_example([IN, other], [answer("balance", 0.8), answer("transfer", 0.9)])
    assert chosen is not None
    assert (chosen.document, chosen.label) == (other.text, other.label)


def test_texts_that_are_answered_wrongly_or_fell_back_are_not_chosen() -> None:
    fell_back = Fallback(ScoredLabel("balance", 0.1), 0.5)
    assert chosen_example([IN, OUT], [answer("transfer", 0.9), answer("oos", 0.0, fell_back)]) is None


def test_texts_in_scope_go_first_and_those_that_nobody_reads_are_left_out() -> None:
    rows = [OUT, IN, Example("", "balance"), Example("word " * 50, "balance")]
    chosen = chosen_example(rows, [answer("oos", 1.0), answer("balance", 0.4), *[answer("balance", 1.0)] * 2])
    assert chosen is not None
    assert chosen.document == IN.text
    of_scope = chosen_example([OUT], [answer("oos", 1.0)])
    assert of_scope is not None
    assert of_scope.label == "oos"


def test_every_sample_model_answers_its_example() -> None:
    store = ModelStore(ROOT / "models")
    loader = Loader(store, FileLimits())
    for model_id in map(parse_model_id, SAMPLES):
        manifest = store.read_manifest(model_id)
        assert manifest.example is not None
        assert manifest.example.label is not None
        (found,) = loader.load(model_id, loader.fingerprint(model_id)).predict([example_query(model_id, manifest)])
        assert isinstance(found, Prediction)
        check_answer(manifest, found)
