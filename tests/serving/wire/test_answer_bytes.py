"""Answers that are written as bytes have the same content as the messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import ModelNotFound, Overloaded, ServingError
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, ModelVersion, Onward, Outcome, PathStep, Prediction, ScoredLabel
from serving.stubs import prediction_service_pb2 as pb
from serving.wire.answer_bytes import answer_bytes, batch_answer_bytes, outcomes_in
from serving.wire.messages import predictor_batch_response_of, ready_outcomes_of, response_of

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
    st.just(()),
)
measures = st.floats(0.0, 1e6)
models = st.lists(st.builds(ModelVersion, texts, texts), max_size=2).map(tuple)


def steps(inner: st.SearchStrategy[tuple[PathStep, ...]]) -> st.SearchStrategy[PathStep]:
    codes = st.sampled_from(StatusCode)
    return st.builds(PathStep, texts, models, texts, scores, measures, st.sampled_from(Onward), texts, codes, inner)


paths = st.lists(steps(st.lists(steps(st.just(())), max_size=2).map(tuple)), max_size=3).map(tuple)
refusals = st.sampled_from([ModelNotFound("no model has this runId"), Overloaded("try again", 0.5)])


@given(predictions)
def test_an_answer_is_what_its_message_is_for_both_services(prediction: Prediction) -> None:
    data = answer_bytes(prediction)
    assert pb.PredictResponse.FromString(data) == response_of(pb.PredictResponse, prediction)
    told = pb.PredictorPredictResponse.FromString(data)
    assert told == response_of(pb.PredictorPredictResponse, prediction)


@given(predictions, paths)
def test_the_path_of_an_answer_is_what_its_message_is(prediction: Prediction, path: tuple[PathStep, ...]) -> None:
    answer = prediction._replace(path=path)
    assert pb.PredictResponse.FromString(answer_bytes(answer)) == response_of(pb.PredictResponse, answer)


@given(st.lists(st.none() | predictions | refusals, max_size=5))
def test_a_batch_is_what_its_message_is(outcomes: Sequence[Prediction | ServingError | None]) -> None:
    expected = predictor_batch_response_of(outcomes)
    expected.replica = "replica-1"
    assert pb.PredictorPredictBatchResponse.FromString(batch_answer_bytes(outcomes, "replica-1")) == expected


@given(st.lists(st.none() | predictions | refusals, max_size=5))
def test_a_batch_is_read_as_its_message_is(outcomes: Sequence[Prediction | ServingError | None]) -> None:
    data = batch_answer_bytes(outcomes, "replica-1")
    assert read(outcomes_in, data) == read(parsed_outcomes, data)


@given(st.lists(st.none() | predictions, max_size=3), st.data())
def test_damaged_and_unusual_batches_are_read_as_protobuf_reads_them(
    outcomes: Sequence[Prediction | None], data: st.DataObject
) -> None:
    answer = bytearray(batch_answer_bytes(outcomes, "replica-1"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(answer) - 1))
        answer[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not answer:
            break
    assert read(outcomes_in, bytes(answer)) == read(parsed_outcomes, bytes(answer))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_protobuf_reads_them(data: bytes) -> None:
    assert read(outcomes_in, data) == read(parsed_outcomes, data)


def test_messages_of_other_writers_are_read_too() -> None:
    batch = pb.PredictorPredictBatchResponse(replica="r")
    for score in (0.25, 0.5):
        batch.results.add().response.MergeFrom(pb.PredictorPredictResponse(label="a", score=score))
    assert [outcome.score for outcome in outcomes_in(batch.SerializeToString()) if isinstance(outcome, Prediction)] == [
        0.25,
        0.5,
    ]


def parsed_outcomes(data: bytes) -> list[Outcome | None]:
    return ready_outcomes_of(pb.PredictorPredictBatchResponse.FromString(data))


def read(reader: Callable[[bytes], list[Outcome | None]], data: bytes) -> object:
    """Return the outcomes that are read; errors and values that are not numbers are compared as text."""
    try:
        return [
            repr(outcome)
            if isinstance(outcome, Prediction | None)
            else (type(outcome), str(outcome), outcome.retry_after)
            for outcome in reader(data)
        ]
    except (DecodeError, ServingError):
        # A batch may be damaged in several places, and either reader may meet another one first.
        return "damaged"


def test_long_batches_have_long_lengths() -> None:
    outcomes = [Prediction("label" * 60, 0.5, (), "model", "1.0")] * 300
    parsed = pb.PredictorPredictBatchResponse.FromString(batch_answer_bytes(outcomes, "r"))
    assert [result.response.label for result in parsed.results] == ["label" * 60] * 300
