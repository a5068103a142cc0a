"""The same answer, score, fallback and explanation from every engine that serves a model.

The predictor's model is called directly. TorchServe's archive is called in a separate worker: the frontend's code
writes the requests and reads the answers. For the Open Inference Protocol, the frontend's code reads a response that is
made from the logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.engines.open_inference.answer import outcomes_of
from frontend.engines.torchserve.answers import documents_input, outcomes_in
from predictor.model.intent_model import IntentModel
from predictor.model.tokenizer import Tokenizer
from serving.domain.errors import InvalidRequest, ServingError
from serving.domain.manifest import Manifest
from serving.domain.prediction import Outcome, Prediction, Query
from serving.stubs import open_inference_pb2 as pb
from tests.intentctl.archives import Request, Workers, intentctl, loaded, small_model, workers
from tests.predictor.builders import state_dict

TOKENIZER = "basic_english+words:2+characters:2-4"
NORMALIZED = "basic_english+normalized+words:2+characters:2-4"
TEXTS = ("what is my balance", "transfer money to my account", "set a timer", "play the next song", "what song is this")
LABELS = ("balance", "transfer", "timer", "music")
TYPED = (
    "\u201cset a timer\u201d",
    "\uff53et a timer",
    "\u200bwhat\u00a0is my balance\u200b",
    "don\u2019t play the song",
)
UNUSUAL = ("", " \t", "zzz qqq", "timer", "TIMER timers!", "ünïcode 日本語 🎵", '"balance"', "a " * 300, "my my my")
STRANGERS = (*TYPED, *UNUSUAL)


def tokens_of(texts: Sequence[str]) -> list[str]:
    """Return the tokens of a vocabulary that lacks some of the n-grams of these texts."""
    tokenizer = Tokenizer.parse(TOKENIZER)
    words = [tokenizer.tokens(text) for text in texts]
    ngrams = list(itertools.chain.from_iterable(map(tokenizer.ngrams, words)))
    return ["<unk>", *dict.fromkeys([*itertools.chain.from_iterable(words), *ngrams[::2]])]


MODELS: dict[str, dict[str, Any]] = {
    "warm": {"labels": (*LABELS, "oos"), "default": 0, "Confidence": {"temperature": 2.5, "threshold": 0.4}},
    "cold": {"labels": LABELS, "default": None, "Confidence": {"temperature": 0.4, "threshold": 0.9}},
    "own": {"labels": LABELS, "default": -1, "Confidence": {"threshold": 0.7, "fallback": "timer"}},
    "plain": {"labels": LABELS, "default": 0},
    "words": {"labels": LABELS, "default": None, "Tokenizer": "basic_english", "Confidence": {"temperature": 1.5}},
    "normalized": {"labels": LABELS, "default": 0, "Tokenizer": NORMALIZED, "Confidence": {"threshold": 0.6}},
}


class Engines:
    """A model, and the engines that serve it."""

    def __init__(self, root: Path, name: str, served: Workers) -> None:
        self.folder = root / name
        self.model: IntentModel = loaded(root, name)
        self.manifest = Manifest.parse((self.folder / "manifest.json").read_bytes())
        self._served = served
        exported = intentctl("export", "--torchserve", name, "--model-dir", root, "--model-store", root)
        assert exported.exit_code == 0, exported.stderr
        self._archive = root / f"model-{name}.mar"

    def torchserve(self, queries: Sequence[Query]) -> list[Outcome]:
        (reply,) = self._served.handled(self._archive, [[Request({"documents": documents_input(queries)})]])
        return outcomes_in(reply.answers[0].encode(), queries, self.manifest)

    def open_inference(self, queries: Sequence[Query]) -> list[Outcome]:
        logits = self.model.logits([query.document for query in queries])
        response = pb.ModelInferResponse(model_version="of the engine")
        output = response.outputs.add(name="logits", datatype="FP32", shape=logits.shape)
        output.contents.fp32_contents.extend(logits.ravel().tolist())
        keys = self.manifest.model_dump(by_alias=True, exclude_unset=True)
        described = Manifest.model_validate(keys | {"OpenInference": {"logits": "logits"}})
        return outcomes_of(response, described, queries)


@pytest.fixture(scope="module")
def served() -> Iterator[Workers]:
    with workers() as running:
        yield running


@pytest.fixture(scope="module", params=MODELS)
def engines(request: pytest.FixtureRequest, served: Workers, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    keys = {"Tokenizer": TOKENIZER, "ModelVersion": "1.0"} | MODELS[request.param]
    labels = keys.pop("labels")
    tokens = tokens_of(TEXTS)
    root = tmp_path_factory.mktemp("models")
    weights = state_dict(len(tokens), 8, 6, len(labels))
    classes = {str(index): label for index, label in enumerate(labels)}
    small_model(root, request.param, tokens=tokens, weights=weights, classes=classes, **keys)
    return Engines(root, request.param, served)


def close(value: Any) -> Any:
    """Return ``value`` with the tolerance for parts of logits.

    Handler and predictor each round folded layers to single precision.
    """
    return pytest.approx(value, rel=1e-5, abs=1e-6)


def close_score(value: Any) -> Any:
    """Return ``value`` with the tolerance for probabilities, whose logits are sums in single precision."""
    return pytest.approx(value, abs=1e-5)


def assert_same(answers: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
    """Assert that answers equal the predictor's: texts exactly, numbers up to rounding."""
    for answer, other in zip(answers, expected, strict=True):
        if not isinstance(other, Prediction):
            assert isinstance(answer, ServingError)
            assert answer.code is other.code
            continue
        assert isinstance(answer, Prediction), answer
        assert (answer.label, answer.model_version) == (other.label, "1.0")
        assert answer.score == close_score(other.score)
        assert [best.label for best in answer.best] == [best.label for best in other.best]
        assert [best.score for best in answer.best] == close_score([best.score for best in other.best])
        if other.fallback is None:
            assert answer.fallback is None
        else:
            assert answer.fallback is not None
            assert answer.fallback.best.label == other.fallback.best.label
            assert answer.fallback.best.score == close_score(other.fallback.best.score)
            assert answer.fallback.threshold == other.fallback.threshold


def assert_same_explanations(answers: Sequence[Outcome], expected: Sequence[Outcome]) -> None:
    for answer, other in zip(answers, expected, strict=True):
        found, wanted = getattr(answer, "explanation", None), getattr(other, "explanation", None)
        assert (found is None) == (wanted is None)
        if found is None or wanted is None:
            continue
        assert (found.tokens, found.unknown, found.temperature) == (wanted.tokens, wanted.unknown, wanted.temperature)
        assert [part.label for part in found.labels] == [part.label for part in wanted.labels]
        for part, same in zip(found.labels, wanted.labels, strict=True):
            assert (part.logit, part.bias) == close((same.logit, same.bias))
            assert part.contributions == close(same.contributions)


def test_labels_scores_and_fallbacks_are_the_same_at_every_threshold(engines: Engines) -> None:
    thresholds = (None, 0.0, 0.3, 0.5, 0.8, 0.99)
    queries = [Query("m", text, 3, threshold) for text in (*TEXTS, *STRANGERS) for threshold in thresholds]
    expected = engines.model.predict(queries)
    fell_back = [isinstance(outcome, Prediction) and outcome.fallback is not None for outcome in expected]
    # Some queries fall back and others do not.
    assert 0 < sum(fell_back) < len(fell_back)

    assert_same(engines.torchserve(queries), expected)
    assert_same(engines.open_inference(queries), expected)


def test_every_engine_takes_what_people_type_for_plain_text_where_the_manifest_says_so(engines: Engines) -> None:
    plain = ('"set a timer"', "set a timer", "what is my balance", "don't play the song")
    asked = [Query("m", text, 3, 0.0) for text in TYPED]
    expected = engines.model.predict([Query("m", text, 3, 0.0) for text in plain])
    if engines.model.tokenizer.is_normalized:
        assert engines.model.predict(asked) == expected
        assert_same(engines.torchserve(asked), expected)
        assert_same(engines.open_inference(asked), expected)
    else:
        assert engines.model.predict(asked) != expected


def test_explanations_are_the_same_and_add_up(engines: Engines) -> None:
    labels = list(engines.model.labels)
    queries = [
        Query("m", text, 0, None, explain)
        for text in (*TEXTS, *STRANGERS)
        for explain in ((), (labels[1],), (*labels, labels[0]), ("no such label",))
    ]
    expected = engines.model.predict(queries)
    answers = engines.torchserve(queries)

    assert_same(answers, expected)
    assert_same_explanations(answers, expected)
    assert sum(isinstance(answer, ServingError) for answer in answers) == len(TEXTS) + len(STRANGERS)
    for answer in answers:
        if isinstance(answer, Prediction):
            assert answer.explanation is not None
            for part in answer.explanation.labels:
                assert part.bias + sum(part.contributions) == pytest.approx(part.logit, abs=1e-5)
                each = set(zip(answer.explanation.tokens, part.contributions, strict=True))
                assert len(each) == len(set(answer.explanation.tokens)), "equal tokens add equal parts"


def test_an_explanation_that_is_refused_for_its_size_is_refused_by_both(engines: Engines) -> None:
    labels = engines.model.labels
    queries = [Query("m", "my song " * 40_000, explain=labels), Query("m", "my song", explain=labels)]
    expected = engines.model.predict(queries)
    assert [type(outcome) for outcome in expected] == [InvalidRequest, Prediction]
    assert_same(engines.torchserve(queries), expected)


@settings(max_examples=10)
@given(
    st.lists(
        st.builds(
            Query,
            st.just("m"),
            st.lists(st.sampled_from([*" ".join(TEXTS).split(), "zzz", "é", "!"]), max_size=8).map(" ".join)
            | st.text(max_size=20),
            st.integers(0, 6),
            st.none() | st.floats(0.0, 0.99),
            st.none() | st.lists(st.sampled_from(LABELS), max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=100,
    )
)
def test_whatever_is_asked(engines: Engines, queries: list[Query]) -> None:
    expected = engines.model.predict(queries)
    answers = engines.torchserve(queries)
    assert_same(answers, expected)
    assert_same_explanations(answers, expected)
    plain = [query for query in queries if query.explain is None]
    assert_same(
        engines.open_inference(plain),
        [outcome for query, outcome in zip(queries, expected, strict=True) if query.explain is None],
    )
