from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from serving.call.call import Call, CallNotes
from serving.call.deadline import Deadline
from serving.call.identity import Identity
from serving.domain.errors import InvalidRequest, ModelNotFound, NonFiniteLogits, ServingError, status_of
from serving.domain.prediction import Prediction, Query
from serving.telemetry.call_log import MOST_CHARACTERS, MOST_DOCUMENTS, CallLog, LogCalls, model_of

METHOD = "prediction.PredictionService/Predict"
DOCUMENT = "what my doctor said"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def a_call(**notes: Any) -> Call:
    made = CallNotes()
    for name, value in notes.items():
        setattr(made, name, value)
    return Call("request-1", Deadline.after(30.0), notes=made)


def answered(query: Query) -> Prediction:
    return Prediction("label", 0.9, (), f"{query.model_id}@2", "1.0")


def tell(log: CallLog, call: Call, error: Exception | None = None) -> None:
    started = time.perf_counter()
    if error is None:
        log.ended(METHOD, StatusCode.OK, call, started)
    else:
        log.failed(METHOD, status_of(error), error, call, started)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ("none", [("INTERNAL", "error"), ("INTERNAL", "error")]),
        ("failed", [("NOT_FOUND", "info"), ("INTERNAL", "error"), ("INTERNAL", "error")]),
        ("all", [("OK", "info"), ("NOT_FOUND", "info"), ("INTERNAL", "error"), ("INTERNAL", "error")]),
    ],
)
def test_the_setting_says_which_calls_are_told_and_faults_of_the_service_always_are(
    calls: LogCalls, told: list[tuple[str, str]], lines: list[Any]
) -> None:
    log = CallLog(calls)
    for error in (None, ModelNotFound("none"), NonFiniteLogits("no number"), ValueError("bug")):
        tell(log, a_call(), error)
    assert [(line["code"], line["log_level"]) for line in lines] == told
    assert all(line["event"] == "call" and line["method"] == METHOD and line["seconds"] >= 0 for line in lines)


def test_an_answer_is_told_with_the_version_that_gave_it_and_who_asked(lines: list[Any]) -> None:
    query = Query("name", DOCUMENT)
    call = a_call(query=query, answer=answered(query), release="canary")
    call.identity = Identity("tenant-7", frozenset(), ())
    tell(CallLog("all"), call)
    (line,) = lines
    assert (line["model"], line["release"], line["identity"]) == ("name@2", "canary", "tenant-7")


def test_a_failed_call_is_told_with_the_model_that_was_asked(lines: list[Any]) -> None:
    tell(CallLog(), a_call(query=Query("name@live", DOCUMENT)), ModelNotFound("none"))
    assert lines[0]["model"] == "name@live"
    tell(CallLog(), a_call(query=Query("name@live", DOCUMENT), model="name@3"), ModelNotFound("none"))
    assert lines[1]["model"] == "name@3"


def test_a_batch_is_told_with_the_numbers_of_its_queries(lines: list[Any]) -> None:
    queries = [Query("a", DOCUMENT), Query("b", DOCUMENT), Query("c", DOCUMENT), Query("d", DOCUMENT)]
    outcomes = [answered(queries[0]), ModelNotFound("none"), None, ServingError("no")]
    tell(CallLog("all"), a_call(queries=queries, outcomes=outcomes))
    assert (lines[0]["queries"], lines[0]["failed"], lines[0]["later"]) == (4, 2, 1)
    assert "model" not in lines[0]
    tell(CallLog("all"), a_call(queries=queries[:1], outcomes=outcomes[:1]))
    assert (lines[1]["queries"], lines[1]["failed"], lines[1]["model"]) == (1, 0, "a")


@given(st.text(max_size=200))
def test_what_is_no_model_id_is_never_told(text: str) -> None:
    told = model_of(a_call(model=text).notes)
    assert told in ("", text)
    assert all(character.isascii() and (character.isalnum() or character in "._-@") for character in told)


@given(st.text(min_size=3, max_size=50).map(lambda text: f"~{text}~"), st.sampled_from(["none", "failed", "all"]))
def test_documents_are_told_nowhere_unless_they_are_asked_for(document: str, calls: LogCalls) -> None:
    query = Query("a", document, explain=(document,), key=document)
    with structlog.testing.capture_logs() as lines:
        for call in (a_call(query=query), a_call(queries=[query], outcomes=[ModelNotFound("none")])):
            tell(CallLog(calls), call)
            tell(CallLog(calls), call, ModelNotFound("none"))
            try:
                f"{document}\ud800".encode()
            except UnicodeEncodeError as cause:
                # The parts of the cause hold the whole text.
                refused = InvalidRequest("must be text that UTF-8 can encode")
                refused.__cause__ = cause
                tell(CallLog(calls), call, refused)
    assert "~" not in json.dumps(lines, ensure_ascii=False)


def test_documents_that_are_asked_for_are_cut(lines: list[Any]) -> None:
    tell(CallLog("all", documents=True), a_call(query=Query("a", "x" * 10_000)))
    assert lines[0]["documents"] == ["x" * MOST_CHARACTERS]
    tell(CallLog("all", documents=True), a_call(queries=[Query("a", "y" * 10_000)] * 4096))
    assert lines[1]["documents"] == ["y" * MOST_CHARACTERS] * MOST_DOCUMENTS
    assert lines[1]["queries"] == 4096


def test_calls_of_our_own_keep_no_notes() -> None:
    own = Call.until(Deadline.after(1.0))
    own.notes.queries = [Query("a", DOCUMENT)]
    assert DOCUMENT not in repr(vars(own.notes))
    assert Call.until(Deadline.after(1.0)).notes.queries is None


def test_notes_are_forgotten_with_their_call() -> None:
    call = a_call(query=Query("a", DOCUMENT), queries=[Query("a", DOCUMENT)], outcomes=[None], model="a")
    call.notes.forget()
    assert DOCUMENT not in repr(vars(call.notes))
    assert model_of(call.notes) == "a"
