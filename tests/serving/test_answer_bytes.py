"""Answers written as bytes say what the messages say."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from serving.answer_bytes import answer_bytes, batch_answer_bytes
from serving.errors import ModelNotFound, Overloaded, ServingError
from serving.explanation import Explanation, LabelExplanation
from serving.messages import predictor_batch_response_of, response_of
from serving.prediction import Fallback, Prediction, ScoredLabel
from serving.stubs import prediction_service_pb2 as pb

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scores = st.floats(0.0, 1.0, width=32)
scored = st.builds(ScoredLabel, texts, scores)
explanations = st.builds(
    Explanation,
    st.just(("one", "two")),
    st.just((1,)),
    st.just((LabelExplanation("label", 0.5, 0.25, (0.125, 0.125)),)),
    st.just(1.5),
)
predictions = st.builds(
    Prediction,
    texts,
    scores,
    st.lists(scored, max_size=2).map(tuple),
    texts,
    texts,
    st.none() | st.builds(Fallback, scored, scores),
    st.none() | explanations,
)
refusals = st.sampled_from([ModelNotFound("no model has this runId"), Overloaded("try again", 0.5)])


@given(predictions)
def test_an_answer_is_what_its_message_is_for_both_services(prediction: Prediction) -> None:
    data = answer_bytes(prediction)
    assert pb.PredictResponse.FromString(data) == response_of(pb.PredictResponse, prediction)
    told = pb.PredictorPredictResponse.FromString(data)
    assert told == response_of(pb.PredictorPredictResponse, prediction)


@given(st.lists(st.none() | predictions | refusals, max_size=5))
def test_a_batch_is_what_its_message_is(outcomes: Sequence[Prediction | ServingError | None]) -> None:
    expected = predictor_batch_response_of(outcomes)
    expected.replica = "replica-1"
    assert pb.PredictorPredictBatchResponse.FromString(batch_answer_bytes(outcomes, "replica-1")) == expected


def test_long_batches_have_long_lengths() -> None:
    outcomes = [Prediction("label" * 60, 0.5, (), "model", "1.0")] * 300
    parsed = pb.PredictorPredictBatchResponse.FromString(batch_answer_bytes(outcomes, "r"))
    assert [result.response.label for result in parsed.results] == ["label" * 60] * 300
