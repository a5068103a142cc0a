"""Reading answers of servers of the Open Inference Protocol: typed, raw or damaged."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from frontend.engines.open_inference.answer import outcomes_of
from frontend.engines.open_inference.softmax import most_likely, softmax
from serving.domain.confidence import Confidence
from serving.domain.errors import ModelUnusable, NonFiniteLogits, ServingError
from serving.domain.manifest import Manifest
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes, pack_floats
from tests.serving.refusals import assert_fit_for_callers, refused

Output = pb.ModelInferResponse.InferOutputTensor

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEMPERATURES = st.floats(1e-3, 1e3)
FORMS = pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])


def manifest(classes: Sequence[str] = (), version: str = "1.0", **open_inference: Any) -> Manifest:
    return Manifest.model_validate(
        {
            "Algorithm": "any",
            "ModelVersion": version,
            "classes": {str(index): label for index, label in enumerate(classes)},
            "OpenInference": open_inference,
        }
    )


def queries(count: int, k: int = 0) -> list[Query]:
    return [Query("m", f"document {index}", k) for index in range(count)]


def texts(name: str, values: Sequence[bytes], shape: Sequence[int] | None = None) -> tuple[Output, bytes]:
    output = Output(name=name, datatype="BYTES", shape=[len(values), 1] if shape is None else shape)
    output.contents.bytes_contents.extend(values)
    return output, pack_bytes(values)


def singles(name: str, values: Sequence[float], shape: Sequence[int] | None = None) -> tuple[Output, bytes]:
    output = Output(name=name, datatype="FP32", shape=[len(values), 1] if shape is None else shape)
    output.contents.fp32_contents.extend(values)
    return output, pack_floats(values)


def doubles(name: str, values: Sequence[float], shape: Sequence[int]) -> tuple[Output, bytes]:
    output = Output(name=name, datatype="FP64", shape=shape)
    output.contents.fp64_contents.extend(values)
    return output, struct.pack(f"<{len(values)}d", *values)


def answer(*tensors: tuple[Output, bytes], raw: bool = True, version: str = "7") -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="there", model_version=version)
    for output, contents in tensors:
        response.outputs.append(output)
        if raw:
            response.outputs[-1].ClearField("contents")
            response.raw_output_contents.append(contents)
    return response


def labels_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.label if isinstance(outcome, Prediction) else type(outcome).__name__ for outcome in outcomes]


@FORMS
def test_labels_and_scores_are_read_in_their_order(raw: bool) -> None:
    response = answer(singles("score", [0.5, 0.25]), texts("label", [b"timer", "größe".encode()]), raw=raw)
    first, second = outcomes_of(response, manifest(), queries(2, k=3))
    assert first == Prediction("timer", 0.5, (ScoredLabel("timer", 0.5),), "m", "1.0")
    assert second == Prediction("größe", 0.25, (ScoredLabel("größe", 0.25),), "m", "1.0")


@FORMS
def test_outputs_may_have_other_names_and_stand_beside_others(raw: bool) -> None:
    response = answer(texts("other", [b"x"]), texts("LABEL", [b"timer"]), doubles("P", [0.1], [1]), raw=raw)
    (outcome,) = outcomes_of(response, manifest(label="LABEL", score="P"), queries(1))
    assert outcome == Prediction("timer", 0.1, (), "m", "1.0")


def test_without_a_score_there_are_no_best_labels() -> None:
    (outcome,) = outcomes_of(answer(texts("label", [b"timer"])), manifest(label="label"), queries(1, k=3))
    assert outcome == Prediction("timer", 0.0, (), "m", "1.0")


def test_a_label_is_taken_as_it_stands() -> None:
    (outcome,) = outcomes_of(answer(texts("label", [b" a\0b\n "])), manifest(label="label"), queries(1))
    assert labels_of([outcome]) == [" a\0b\n "]


def test_the_version_is_the_manifests_and_else_the_engines() -> None:
    response = answer(texts("label", [b"a"]), version="7")
    for version, told in (("1.0", "1.0"), ("", "7")):
        (outcome,) = outcomes_of(response, manifest(label="label", version=version), queries(1))
        assert isinstance(outcome, Prediction)
        assert outcome.model_version == told


def test_typed_and_raw_outputs_are_read_beside_each_other() -> None:
    response = answer(texts("label", [b"a", b"b"]), raw=False)
    score, contents = singles("score", [0.5, 0.25])
    score.ClearField("contents")
    response.outputs.append(score)
    response.raw_output_contents.append(contents)
    first, second = outcomes_of(response, manifest(), queries(2))
    assert (first, second) == (Prediction("a", 0.5, (), "m", "1.0"), Prediction("b", 0.25, (), "m", "1.0"))


@pytest.mark.parametrize("shape", [[2], [2, 1], [1, 2], [2, 1, 1]], ids=str)
def test_dimensions_of_one_do_not_count(shape: list[int]) -> None:
    assert labels_of(outcomes_of(answer(texts("label", [b"a", b"b"], shape)), manifest(label="label"), queries(2))) == [
        "a",
        "b",
    ]


@FORMS
@pytest.mark.parametrize("kind", [singles, doubles], ids=["FP32", "FP64"])
def test_logits_become_the_label_of_the_highest_with_its_probability(kind: Any, raw: bool) -> None:
    response = answer(kind("logits", [1.0, 3.0, 2.0, 5.0, 5.0, -1.0], [2, 3]), raw=raw)
    first, second = outcomes_of(response, manifest(["a", "b", "c"], logits="logits"), queries(2, k=2))
    assert isinstance(first, Prediction)
    assert first.label == "b"
    assert [scored.label for scored in first.best] == ["b", "c"]
    assert first.score == first.best[0].score == pytest.approx(math.exp(3) / (math.exp(1) + math.exp(2) + math.exp(3)))
    # The first of equal logits wins, as in NumPy's argmax.
    assert isinstance(second, Prediction)
    assert [scored.label for scored in second.best] == ["a", "b"]


def test_no_best_labels_where_none_are_asked_for_and_all_where_too_many() -> None:
    response = answer(singles("logits", [1.0, 2.0, 3.0, 1.0, 2.0, 3.0], [2, 3]))
    asked = [Query("m", "x", 0), Query("m", "x", 1 << 20)]
    first, second = outcomes_of(response, manifest(["a", "b", "c"], logits="logits"), asked)
    assert isinstance(first, Prediction)
    assert isinstance(second, Prediction)
    assert first.best == ()
    assert [scored.label for scored in second.best] == ["c", "b", "a"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_told_of_its_document_alone(value: float) -> None:
    response = answer(singles("logits", [1.0, 2.0, 1.0, value, 2.0, 1.0], [3, 2]))
    outcomes = outcomes_of(response, manifest(["a", "b"], logits="logits"), queries(3))
    assert labels_of(outcomes) == ["b", "NonFiniteLogits", "a"]
    scored = answer(texts("label", [b"a", b"b"]), singles("score", [value, 0.5]))
    outcomes = outcomes_of(scored, manifest(), queries(2))
    assert labels_of(outcomes) == ["NonFiniteLogits", "b"]
    assert isinstance(outcomes[0], NonFiniteLogits)
    assert_fit_for_callers(outcomes[0])


def test_a_label_that_is_no_text_is_told_of_its_document_alone() -> None:
    outcomes = outcomes_of(answer(texts("label", [b"a", b"\xff", b"c"])), manifest(label="label"), queries(3))
    assert labels_of(outcomes) == ["a", "ModelUnusable", "c"]
    assert isinstance(outcomes[1], ServingError)
    assert outcomes[1].code is StatusCode.FAILED_PRECONDITION
    assert_fit_for_callers(outcomes[1])


def _cut(tensor: tuple[Output, bytes]) -> tuple[Output, bytes]:
    return tensor[0], tensor[1][:-1]


WRONG = {
    "no outputs": answer(),
    "no label": answer(singles("score", [0.5, 0.5])),
    "no score": answer(texts("label", [b"a", b"b"])),
    "label of floats": answer(singles("label", [0.5, 0.5]), singles("score", [0.5, 0.5])),
    "label of another type": pb.ModelInferResponse(
        outputs=[
            Output(
                name="label", datatype="UINT8", shape=[2], contents=pb.InferTensorContents(bytes_contents=[b"a", b"b"])
            ),
            singles("score", [0.5, 0.5])[0],
        ]
    ),
    "score of texts": answer(texts("label", [b"a", b"b"]), texts("score", [b"a", b"b"])),
    "too few labels": answer(texts("label", [b"a"]), singles("score", [0.5, 0.5])),
    "too many labels": answer(texts("label", [b"a", b"b", b"c"]), singles("score", [0.5, 0.5])),
    "too few scores": answer(texts("label", [b"a", b"b"]), singles("score", [0.5])),
    "a row of scores": answer(texts("label", [b"a", b"b"]), singles("score", [0.5] * 4, [2, 2])),
    "labels cut off": answer(_cut(texts("label", [b"a", b"b"])), singles("score", [0.5, 0.5])),
    "scores cut off": answer(texts("label", [b"a", b"b"]), _cut(singles("score", [0.5, 0.5]))),
    "a shape that is not so": answer(texts("label", [b"a", b"b"], [3]), singles("score", [0.5, 0.5])),
    "nothing": pb.ModelInferResponse(outputs=[Output(name="label", datatype="BYTES", shape=[2])]),
}


@pytest.mark.parametrize("response", WRONG.values(), ids=WRONG.keys())
def test_an_answer_that_is_not_what_the_manifest_says_is_told_to_the_publisher(
    response: pb.ModelInferResponse,
) -> None:
    with refused(ModelUnusable, match=r"manifest\.json"):
        outcomes_of(response, manifest(), queries(2))


def test_raw_contents_that_belong_to_no_output_are_told() -> None:
    for change in (1, -1):
        response = answer(texts("label", [b"a"]), singles("score", [0.5]))
        if change > 0:
            response.raw_output_contents.append(b"")
        else:
            del response.raw_output_contents[-1]
        with refused(ModelUnusable):
            outcomes_of(response, manifest(), queries(1))


@pytest.mark.parametrize("shape", [[3, 2], [6], [2, 4], [1, 2, 3, 2]], ids=str)
def test_rows_are_not_taken_for_columns(shape: list[int]) -> None:
    with refused(ModelUnusable, match=r"\[2, 3\]"):
        outcomes_of(answer(singles("x", [0.0] * 6, shape)), manifest(["a", "b", "c"], logits="x"), queries(2))


def test_logits_without_classes_are_told() -> None:
    with refused(ModelUnusable, match="classes"):
        outcomes_of(answer(singles("logits", [0.0], [1, 1])), manifest(logits="logits"), queries(1))


@given(st.lists(FINITE, min_size=1, max_size=40), st.integers(1, 50), TEMPERATURES)
def test_probabilities_are_ranked_and_those_of_all_are_one(logits: list[float], k: int, temperature: float) -> None:
    probabilities = softmax(logits, temperature)
    ranked = most_likely(logits, k)
    assert ranked == sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:k]
    scores = [probabilities[index] for index in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in probabilities)
    assert math.fsum(probabilities) == pytest.approx(1.0)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=40), TEMPERATURES)
def test_probabilities_are_those_that_the_predictor_computes(logits: list[float], temperature: float) -> None:
    row = np.array(logits) / temperature
    exponentials = np.exp(row - row.max())
    assert most_likely(logits, 1)[0] == int(np.argmax(logits))
    assert softmax(logits, temperature) == pytest.approx(list(exponentials / exponentials.sum()), abs=1e-9)


# Thresholds and explanations


def confident(**keys: Any) -> Manifest:
    """Return a manifest of a model that answers with logits; ``keys`` are the manifest's confidence."""
    return manifest(["a", "b", "oos"], logits="logits").model_copy(update={"confidence": Confidence(**keys)})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_logits_are_divided_by_the_manifests_temperature(temperature: float) -> None:
    logits = [1.0, 3.0, 2.0]
    (outcome,) = outcomes_of(
        answer(singles("logits", logits, [1, 3])), confident(temperature=temperature), queries(1, k=3)
    )
    assert isinstance(outcome, Prediction)
    weights = [math.exp(logit / temperature) for logit in logits]
    assert [best.label for best in outcome.best] == ["b", "oos", "a"]
    assert [best.score for best in outcome.best] == pytest.approx([weights[i] / sum(weights) for i in (1, 2, 0)])


@pytest.mark.parametrize(
    ("manifests", "asked", "label"),
    [
        (0.0, None, "b"), (0.6, None, "b"), (0.7, None, "oos"), (0.7, 0.6, "b"), (0.0, 0.7, "oos"), (0.7, 0.0, "b"),
        (0.0, 1.0, "oos"),
    ],
)  # fmt: skip
def test_below_the_threshold_of_the_query_or_else_the_manifest_the_answer_is_the_fallback_label(
    manifests: float, asked: float | None, label: str
) -> None:
    response = answer(singles("logits", [1.0, 3.0, 2.0], [1, 3]))
    (outcome,) = outcomes_of(response, confident(threshold=manifests), [Query("m", "x", 2, asked)])
    assert isinstance(outcome, Prediction)
    total = math.exp(1) + math.exp(2) + math.exp(3)
    best, other = outcome.best
    assert (outcome.label, best.label, other.label) == (label, "b", "oos")
    assert (best.score, other.score) == pytest.approx((math.exp(3) / total, math.exp(2) / total))
    if label == "b":
        assert (outcome.score, outcome.fallback) == (best.score, None)
    else:
        assert outcome.score == other.score
        assert outcome.fallback == Fallback(best, manifests if asked is None else asked)


def test_a_fallback_label_that_is_none_of_the_models_has_no_probability_and_is_never_fallen_back_from() -> None:
    response = answer(singles("logits", [1.0, 3.0, 2.0, 0.0, 0.0, 9.0], [2, 3]))
    first, second = outcomes_of(response, confident(threshold=1.0, fallback="else"), queries(2))
    assert isinstance(first, Prediction)
    assert (first.label, first.score) == ("else", 0.0)
    own, other = outcomes_of(response, confident(threshold=1.0), queries(2))
    assert isinstance(own, Prediction)
    assert isinstance(other, Prediction)
    assert isinstance(second, Prediction)
    assert second.fallback is not None
    # The best label of the second document is the fallback label itself.
    assert (own.fallback is None, other.fallback) == (False, None)


@FORMS
def test_a_label_with_its_score_is_held_against_the_threshold(raw: bool) -> None:
    described = manifest().model_copy(update={"confidence": Confidence(threshold=0.4, fallback="else")})
    response = answer(texts("label", [b"a", b"b", b"b", b"else"]), singles("score", [0.5, 0.25, 0.25, 0.125]), raw=raw)
    asked = [Query("m", "x", 1), Query("m", "x", 1), Query("m", "x", 1, 0.25), Query("m", "x", 1)]
    outcomes = outcomes_of(response, described, asked)
    assert outcomes == [
        Prediction("a", 0.5, (ScoredLabel("a", 0.5),), "m", "1.0"),
        Prediction("else", 0.0, (ScoredLabel("b", 0.25),), "m", "1.0", Fallback(ScoredLabel("b", 0.25), 0.4)),
        Prediction("b", 0.25, (ScoredLabel("b", 0.25),), "m", "1.0"),
        Prediction("else", 0.125, (ScoredLabel("else", 0.125),), "m", "1.0"),
    ]


def test_without_a_score_a_threshold_is_refused_and_not_ignored() -> None:
    described = manifest(label="label").model_copy(update={"confidence": Confidence(threshold=0.4, fallback="else")})
    response = answer(texts("label", [b"a", b"a", b"a", b"else"]))
    asked = [Query("m", "x"), Query("m", "x", threshold=0.0), Query("m", "x", threshold=0.1), Query("m", "x")]
    outcomes = outcomes_of(response, described, asked)
    assert labels_of(outcomes) == ["ModelUnusable", "a", "ModelUnusable", "else"]
    for refusal in (outcomes[0], outcomes[2]):
        assert isinstance(refusal, ModelUnusable)
        assert "threshold" in str(refusal)
        assert_fit_for_callers(refusal)


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_an_explanation_is_refused_to_who_asks_for_it_alone(kind: str) -> None:
    tensors = {
        "labels": (manifest(), [texts("label", [b"a", b"a"]), singles("score", [0.5, 0.5])]),
        "logits": (manifest(["a"], logits="x"), [singles("x", [1.0, 1.0], [2, 1])]),
    }
    described, outputs = tensors[kind]
    refusal, other = outcomes_of(answer(*outputs), described, [Query("m", "x", explain=()), Query("m", "x")])
    assert isinstance(refusal, ModelUnusable)
    assert refusal.code is StatusCode.FAILED_PRECONDITION
    assert "explain" in str(refusal)
    assert_fit_for_callers(refusal)
    assert labels_of([other]) == ["a"]


@given(st.binary(max_size=80))
def test_no_message_breaks_the_reading(data: bytes) -> None:
    response = pb.ModelInferResponse()
    try:
        response.ParseFromString(data)
    except Exception:  # noqa: BLE001 - whatever it raises, it is no message
        return
    for described in (manifest(), manifest(["a"], logits="label")):
        try:
            outcomes = outcomes_of(response, described, queries(1))
        except ModelUnusable as error:
            assert_fit_for_callers(error)
        else:
            assert len(outcomes) == 1


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([[-1], [-1, 1], [1, -1]]),
    st.data(),
)
def test_labels_come_back_as_they_were(values: list[str], raw: bool, shape: list[int], data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(values), max_size=len(values)))
    sizes = [len(values) if size == -1 else size for size in shape]
    response = answer(
        texts("label", [value.encode() for value in values], sizes), singles("score", scores, sizes), raw=raw
    )
    outcomes = outcomes_of(
        pb.ModelInferResponse.FromString(response.SerializeToString()), manifest(), queries(len(values))
    )
    assert [(outcome.label, outcome.score) for outcome in outcomes if isinstance(outcome, Prediction)] == [
        *zip(values, scores, strict=True)
    ]
