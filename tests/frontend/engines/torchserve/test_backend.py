from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from grpc import StatusCode

from frontend.batching.coalescing import CoalescingBackend
from frontend.engines.backend import Removed
from frontend.engines.torchserve.backend import TorchServeBackend
from serving.domain.errors import (
    INTERNAL_MESSAGE,
    DeadlineExceeded,
    InvalidModelFile,
    InvalidRequest,
    ModelIncomplete,
    ModelNotFound,
    ModelUnusable,
    OutOfCapacity,
    ServingError,
    Unavailable,
)
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.manifest import Manifest
from serving.domain.prediction import Fallback, Prediction, Query, ScoredLabel
from tests.builders import PATIENCE, a_call, a_turn, free_port, model_id
from tests.fakes.manifests import UNPUBLISHED
from tests.fakes.torchserve import (
    Archive,
    FakeTorchServe,
    HandlerError,
    Inputs,
    asking,
    documents,
    manifests_of,
    plain,
    running,
)
from tests.serving.refusals import assert_fit_for_callers, refused


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


async def label(backend: TorchServeBackend, model: str, document: str = "x", seconds: float = PATIENCE) -> str:
    return (await backend.predict(Query(model, document), a_call(seconds))).label


async def label_in_the_end(backend: TorchServeBackend, model: str) -> str:
    """Return the label once the model is up; until then, the answer is UNAVAILABLE."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await label(backend, model)
            except Unavailable:
                continue


async def test_the_first_question_registers_the_model_with_its_workers_and_batches() -> None:
    async with (
        running(FakeTorchServe(a=Archive(plain("a")))) as fake,
        asking(fake, workers=2, batch_size=32) as backend,
    ):
        prediction = await backend.predict(Query("a", "hello"), a_call())
        assert prediction == Prediction("a hello", 0.0, (), "a", "1.0")
        model = fake.models["intent-1.0", "1.0"]
        assert model.url == "model-a.mar"
        assert len(model.workers) == 2
        assert (model.request.batch_size, model.request.max_batch_delay) == (32, 1)
        await label(backend, "a")
        assert fake.asked["RegisterModel"] == fake.asked["ScaleWorker"] == 1


async def test_one_registration_however_many_ask_and_who_leaves_does_not_end_it() -> None:
    up = asyncio.Event()
    async with running(FakeTorchServe(a=Archive(plain("a"), up=up))) as fake, asking(fake) as backend:
        hasty = [asyncio.create_task(label(backend, "a", seconds=0.3)) for _ in range(5)]
        gone = asyncio.create_task(label(backend, "a"))
        patient = [asyncio.create_task(label(backend, "a", str(number))) for number in range(20)]
        for late in hasty:
            with refused(DeadlineExceeded):
                await late
        gone.cancel()
        up.set()
        assert await asyncio.gather(*patient) == [f"a {number}" for number in range(20)]
        assert gone.cancelled()
        assert fake.asked["RegisterModel"] == fake.asked["ScaleWorker"] == 1


async def test_a_registration_goes_on_where_nobody_waits_any_longer() -> None:
    up = asyncio.Event()
    async with running(FakeTorchServe(a=Archive(plain("a"), up=up))) as fake, asking(fake) as backend:
        with refused(DeadlineExceeded):
            await label(backend, "a", seconds=0.3)
        up.set()
        assert await label(backend, "a") == "a x"
        assert fake.asked["ScaleWorker"] == 1


async def test_a_worker_that_does_not_come_up_in_time_is_told_and_is_not_registered_twice() -> None:
    up = asyncio.Event()
    archive = Archive(plain("a"), up=up)
    async with running(FakeTorchServe(a=archive)) as fake, asking(fake, registration_seconds=0.3) as backend:
        with refused(Unavailable, "in time"):
            await label(backend, "a")
        up.set()
        assert await label_in_the_end(backend, "a") == "a x"
        assert fake.asked["RegisterModel"] == 1


async def test_models_of_one_name_and_version_answer_each_for_itself() -> None:
    archives = {name: Archive(plain(name)) for name in ("a", "b", "c")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake) as backend:
        assert await asyncio.gather(*(label(backend, name) for name in archives)) == ["a x", "b x", "c x"]
        assert set(fake.registered.values()) == {"model-a.mar", "model-b.mar", "model-c.mar"}
        assert sum("@" not in name for name in fake.registered) == 1


async def test_a_name_that_another_model_has_is_left_to_it() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b"), version="2.0"))) as fake:
        fake.put("intent-1.0", "model-b.mar")
        async with asking(fake) as backend:
            assert await label(backend, "a") == "a x"
        assert fake.registered == {"intent-1.0": "model-b.mar", "intent-1.0@a": "model-a.mar"}


async def test_a_model_whose_names_are_all_taken_is_refused() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b")))) as fake, asking(fake) as backend:
        fake.put("intent-1.0", "model-b.mar")
        fake.put("intent-1.0@a", "model-b.mar")
        with refused(ModelUnusable, "other models"):
            await label(backend, "a")


async def test_what_somebody_else_has_registered_is_used_and_given_a_worker_where_it_has_none() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b")))) as fake, asking(fake) as backend:
        fake.put("intent-1.0", "model-a.mar", workers=0)
        fake.put("intent-1.0@b", "model-b.mar")
        assert await label(backend, "a") == "a x"
        assert await label(backend, "b") == "b x"
        assert (fake.asked["RegisterModel"], fake.asked["ScaleWorker"]) == (0, 1)


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ({"ModelName": "intent", "ModelVersion": "2"}, "intent-2"),
        ({"ModelName": "", "ModelVersion": "1.0"}, "model@a"),
        ({"ModelName": "intent", "ModelVersion": ""}, "model@a"),
        ({"ModelName": "a b/c", "ModelVersion": "1.0"}, "model@a"),
        # No model may get a name that is qualified with another model's id.
        ({"ModelName": "intent", "ModelVersion": "1.0@b"}, "model@a"),
    ],
)
async def test_the_name_is_made_of_the_manifest_where_it_makes_one(manifest: dict[str, str], name: str) -> None:
    async with (
        running(FakeTorchServe(a=Archive(plain("a")))) as fake,
        asking(fake, manifests_of(a=manifest)) as backend,
    ):
        assert await label(backend, "a") == "a x"
        assert fake.registered == {name: "model-a.mar"}


async def test_a_new_version_in_the_manifest_is_registered_anew() -> None:
    manifests = manifests_of(a={"ModelVersion": "1"})
    async with running(FakeTorchServe(a=Archive(plain("old")))) as fake, asking(fake, manifests) as backend:
        assert await label(backend, "a") == "old x"
        fake.store["model-a.mar"] = Archive(plain("new"))
        manifests.of_models["a"] = {"ModelVersion": "2"}
        assert await label(backend, "a") == "new x"


async def test_a_model_that_is_not_published_asks_torchserve_nothing() -> None:
    async with running(FakeTorchServe()) as fake, asking(fake) as backend:
        with refused(ModelNotFound):
            await label(backend, UNPUBLISHED)
        assert not fake.asked


async def test_a_missing_archive_is_told_and_found_as_soon_as_it_is_there() -> None:
    async with running(FakeTorchServe()) as fake, asking(fake) as backend:
        with refused(ModelIncomplete, r"model-a\.mar"):
            await label(backend, "a")
        fake.store["model-a.mar"] = Archive(plain("a"))
        assert await label(backend, "a") == "a x"


@pytest.mark.parametrize("archive", [Archive(plain("a"), readable=False), Archive(plain("a"), starts=False)])
async def test_an_archive_that_is_no_good_is_told_and_cleared_away_and_not_tried_for_each_question(
    archive: Archive,
) -> None:
    async with running(FakeTorchServe(a=archive)) as fake, asking(fake) as backend:
        for _ in range(3):
            with refused(InvalidModelFile, "archive"):
                await label(backend, "a")
        assert fake.asked["RegisterModel"] == 1
        assert not fake.models


async def test_a_model_api_that_is_disabled_is_told() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        fake.model_api = False
        with refused(Unavailable, "model API"):
            await label(backend, "a")


# Answers.


async def answering(answer: bytes) -> Prediction:
    async with running(FakeTorchServe(a=Archive(plain(answer)))) as fake, asking(fake) as backend:
        return await backend.predict(Query("a", "x", 2), a_call())


@pytest.mark.parametrize(
    "answer", [b'{"result": "t\xc3\xa9l"}', b'{"predict_res": "t\\u00e9l", "pid": 1}', b'"t\\u00e9l"', b" t\xc3\xa9l\n"]
)
async def test_a_plain_handlers_label_is_taken_in_each_form(answer: bytes) -> None:
    assert await answering(answer) == Prediction("tél", 0.0, (), "a", "1.0")


async def test_a_score_and_the_best_labels_are_taken_where_there_are_some() -> None:
    prediction = await answering(b'{"result": "a", "score": 0.75, "best": [["a", 0.75], ["b", 0.25]]}')
    assert (prediction.score, prediction.best) == (0.75, (ScoredLabel("a", 0.75), ScoredLabel("b", 0.25)))


@pytest.mark.parametrize(
    "answer",
    [
        *(b"5", b"null", b"[1]", b"{}", b'{"result": 5}', b'{"result": "a", "score": "much"}', b'""', b"", b"\xff\xfe"),
        *(b'{"result": "a", "score": NaN}', b'{"result": "a", "best": [1]}', b"[" * 100_000, b'{"results": []}'),
    ],
)
async def test_an_answer_that_is_no_label_is_the_handlers_fault(answer: bytes) -> None:
    with refused(ServingError, "not a label") as caught:
        await answering(answer)
    assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize(("code", "kind"), [(400, InvalidRequest), (500, ServingError)])
async def test_an_error_in_the_place_of_an_answer_is_told_as_one(code: int, kind: type[ServingError]) -> None:
    with refused(kind) as caught:
        await answering(f'{{"code": {code}, "type": "PredictionException", "message": "secret"}}'.encode())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (HandlerError(), ServingError, StatusCode.INTERNAL),
        (HandlerError("secret", StatusCode.NOT_FOUND), ServingError, StatusCode.INTERNAL),
        (HandlerError("secret", StatusCode.PERMISSION_DENIED), ServingError, StatusCode.INTERNAL),
        (HandlerError("secret", StatusCode.DEADLINE_EXCEEDED), ServingError, StatusCode.INTERNAL),
        (HandlerError("secret", StatusCode.INVALID_ARGUMENT), InvalidRequest, StatusCode.INVALID_ARGUMENT),
        (HandlerError("secret", StatusCode.RESOURCE_EXHAUSTED), OutOfCapacity, StatusCode.RESOURCE_EXHAUSTED),
        (HandlerError("Out of resources", StatusCode.INTERNAL), OutOfCapacity, StatusCode.RESOURCE_EXHAUSTED),
        (HandlerError("Worker died.", StatusCode.INTERNAL), Unavailable, StatusCode.UNAVAILABLE),
    ],
)
async def test_a_handler_that_fails_is_told_in_our_words(
    failure: HandlerError, kind: type[ServingError], code: StatusCode
) -> None:
    async def fail(inputs: Inputs) -> bytes:
        if inputs:
            raise failure
        return b"{}"

    async with running(FakeTorchServe(a=Archive(fail))) as fake, asking(fake) as backend:
        with refused(kind) as caught:
            await label(backend, "a")
        assert caught.value.code is code
        assert "secret" not in str(caught.value)
        assert fake.asked["Predictions"] == 1


async def test_the_failure_of_a_call_is_no_fault_of_the_service_whether_its_caller_has_left_or_not() -> None:
    async def fail(inputs: Inputs) -> bytes:
        del inputs
        raise HandlerError

    async with running(FakeTorchServe(a=Archive(fail))) as fake, asking(fake) as backend:
        with structlog.testing.capture_logs() as lines:
            with refused(ServingError):
                await label(backend, "a")
            leaving = asyncio.create_task(label(backend, "a"))
            await a_turn(3)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await a_turn(10)
        assert [line for line in lines if line["log_level"] == "error"] == []


async def test_a_full_queue_is_told_as_such() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        await label(backend, "a")
        fake.full = True
        with refused(OutOfCapacity, "queue"):
            await label(backend, "a")


async def test_a_model_that_has_lost_its_workers_gets_some() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        await label(backend, "a")
        fake.models["intent-1.0", "1.0"].workers.clear()
        assert await label(backend, "a") == "a x"


# Thresholds and explanations.


EXPLAINED: dict[str, Any] = {
    "tokens": ["x", "y"],
    "unknown": [1],
    "labels": [{"label": "a", "logit": 1.5, "bias": 0.5, "contributions": [0.75, 0.25]}],
    "temperature": 2.0,
}
FELL_BACK: dict[str, Any] = {"best": {"label": "a", "score": 0.3}, "threshold": 0.5}


def reasons(**keys: Any) -> Callable[[Inputs], Awaitable[bytes]]:
    """Return a handler as ``intentctl export`` writes it; ``keys`` replace and add to the keys of each result."""

    async def handle(inputs: Inputs) -> bytes:
        if not inputs:
            return b'{"documents": true, "labels": 2}'
        results = [
            {"result": one["document"], "score": 0.25, "best": [], "fallback": None}
            | ({"explanation": EXPLAINED} if "explain" in one else {})
            | keys
            for one in json.loads(inputs["documents"])
        ]
        return json.dumps({"results": results}).encode()

    return handle


async def test_a_handler_of_ours_is_told_what_is_asked_and_what_it_answers_is_passed_on() -> None:
    manifests = manifests_of(a={"Confidence": {"threshold": 0.9, "fallback": "x"}})
    async with (
        running(FakeTorchServe(a=Archive(reasons()), b=Archive(reasons(fallback=FELL_BACK)))) as fake,
        asking(fake, manifests) as backend,
    ):
        explained = await backend.predict(Query("a", "t", 1, 0.5, ("b", "c")), a_call())
        fell_back = await backend.predict(Query("b", "oos", 0, 0.5), a_call())
        plain_one = await backend.predict(Query("a", "t"), a_call())

        asked = [json.loads(request.input["documents"]) for request in fake.predictions]

    assert asked == [
        [{"document": "t", "k": 1, "threshold": 0.5, "explain": ["b", "c"]}],
        [{"document": "oos", "k": 0, "threshold": 0.5}],
        [{"document": "t", "k": 0}],
    ]
    reason = Explanation(("x", "y"), (1,), (LabelExplanation("a", 1.5, 0.5, (0.75, 0.25)),), 2.0)
    assert explained == Prediction("t", 0.25, (), "a", "1.0", None, reason)
    assert fell_back == Prediction("oos", 0.25, (), "b", "1.0", Fallback(ScoredLabel("a", 0.3), 0.5))
    # The handler has already applied its own manifest.
    assert plain_one == Prediction("t", 0.25, (), "a", "1.0")


@pytest.mark.parametrize(
    "keys",
    [
        {"fallback": 1}, {"fallback": {}}, {"fallback": FELL_BACK | {"best": {"label": "a", "score": math.nan}}},
        {"explanation": None}, {"explanation": {}}, {"explanation": EXPLAINED | {"unknown": [2]}},
        {"explanation": EXPLAINED | {"unknown": [-1]}}, {"explanation": EXPLAINED | {"tokens": ["x"], "unknown": []}},
        {"explanation": EXPLAINED | {"temperature": "warm"}}, {"explanation": EXPLAINED | {"labels": [{}]}},
    ],
    ids=str,
)  # fmt: skip
async def test_reasons_that_are_none_are_the_handlers_fault(keys: dict[str, Any]) -> None:
    async with running(FakeTorchServe(a=Archive(reasons(**keys)))) as fake, asking(fake) as backend:
        with refused(ServingError, "handler") as caught:
            await backend.predict(Query("a", "x", explain=()), a_call())
        assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize(
    "handler", [documents("a"), plain(b'{"result": "a x", "score": 0.5}')], ids=["ours", "foreign"]
)
async def test_the_score_of_a_handler_that_knows_no_thresholds_is_held_against_them_here(handler: Any) -> None:
    manifests = manifests_of(a={"Confidence": {"threshold": 0.6, "fallback": "b"}})
    async with running(FakeTorchServe(a=Archive(handler))) as fake, asking(fake, manifests) as backend:
        by_manifest = await backend.predict(Query("a", "x"), a_call())
        by_query = await backend.predict(Query("a", "x", threshold=0.5), a_call())
        together = await backend.predict_batch([Query("a", "x"), Query("a", "x", threshold=0.5)], a_call())

    assert by_manifest == Prediction("b", 0.0, (), "a", "1.0", Fallback(ScoredLabel("a x", 0.5), 0.6))
    assert by_query == Prediction("a x", 0.5, (), "a", "1.0")
    assert together == [by_manifest, by_query]


async def test_the_probability_of_the_fallback_label_is_taken_where_it_is_told() -> None:
    manifests = manifests_of(a={"Confidence": {"threshold": 0.6, "fallback": "b"}})
    async with running(FakeTorchServe(a=Archive(documents("a")))) as fake, asking(fake, manifests) as backend:
        prediction = await backend.predict(Query("a", "x", 2), a_call())
    assert (prediction.label, prediction.score) == ("b", 0.25)
    assert prediction.best == (ScoredLabel("a", 0.5), ScoredLabel("b", 0.25))


async def test_without_a_score_a_threshold_is_refused_and_not_ignored() -> None:
    manifests = manifests_of(b={"Confidence": {"threshold": 0.6}})
    archives = {name: Archive(plain(name)) for name in ("a", "b")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, manifests) as backend:
        for query in (Query("a", "x", threshold=0.1), Query("b", "x")):
            with refused(ModelUnusable, "threshold") as caught:
                await backend.predict(query, a_call())
            assert caught.value.code is StatusCode.FAILED_PRECONDITION
        for query in (Query("a", "x"), Query("b", "x", threshold=0.0)):
            assert (await backend.predict(query, a_call())).label == f"{query.model_id} x"


@pytest.mark.parametrize("handler", [documents("a"), plain("a")], ids=["of-a-former-release", "foreign"])
async def test_a_handler_that_explains_nothing_says_so_and_others_are_answered(handler: Any) -> None:
    async with running(FakeTorchServe(a=Archive(handler))) as fake, asking(fake) as backend:
        coalescing = CoalescingBackend(backend, calls=1, group_of=backend.group_of)
        outcomes = await asyncio.gather(
            *(coalescing.predict(Query("a", "x", explain=explain), a_call()) for explain in (None, (), None)),
            return_exceptions=True,
        )
        assert [getattr(outcome, "label", None) for outcome in outcomes] == ["a x", None, "a x"]
        assert isinstance(outcomes[1], ModelUnusable)
        assert "export" in str(outcomes[1])
        assert_fit_for_callers(outcomes[1])
        # Batches continue.
        await coalescing.predict_batch([Query("a", "x")], a_call())


async def test_what_is_to_be_explained_is_asked_alone() -> None:
    async with running(FakeTorchServe(a=Archive(reasons()))) as fake, asking(fake) as backend:
        queries = [Query("a", str(number), explain=() if number % 2 else None) for number in range(6)]
        await label(backend, "a")
        ready = await backend.predict_ready(queries, a_call())
        assert [getattr(outcome, "label", None) for outcome in ready] == ["0", None, "2", None, "4", None]
        outcomes = await backend.predict_batch(queries, a_call())
        assert [getattr(outcome, "label", None) for outcome in outcomes] == [str(number) for number in range(6)]
        assert all(
            (getattr(outcome, "explanation", None) is None) == (query.explain is None)
            for outcome, query in zip(outcomes, queries, strict=True)
        )
        assert await backend.predict_ready(queries[1:2], a_call()) == [None]


@pytest.mark.parametrize(
    ("code", "explain", "kind", "told"),
    [
        (400, (), InvalidRequest, "label"),
        (400, None, InvalidRequest, "does not accept"),
        (413, (), InvalidRequest, "fewer labels"),
        (503, None, OutOfCapacity, "try again"),
        (503, (), OutOfCapacity, "try again"),
        (500, (), ServingError, "no answer"),
    ],
)
async def test_an_error_of_the_handler_has_its_code(
    code: int, explain: tuple[str, ...] | None, kind: type[ServingError], told: str
) -> None:
    async def failing(inputs: Inputs) -> bytes:
        error = {"code": code, "type": "PredictionException", "message": "secret"}
        return json.dumps({"results": [error]} if inputs else {"documents": True}).encode()

    async with running(FakeTorchServe(a=Archive(failing))) as fake, asking(fake) as backend:
        with refused(kind, told) as caught:
            await backend.predict(Query("a", "x", explain=explain), a_call())
        assert type(caught.value) is kind
        assert "secret" not in str(caught.value)


# Batches.


async def test_a_handler_that_takes_documents_gets_a_group_in_one_call_and_answers_as_it_does_one() -> None:
    async with running(FakeTorchServe(a=Archive(documents("a")))) as fake, asking(fake) as backend:
        queries = [Query("a", f"é {number}", number % 3) for number in range(50)]
        alone = [await backend.predict(query, a_call()) for query in queries]
        asked = fake.asked["Predictions"]
        together = await backend.predict_ready(queries, a_call())
        assert together == alone
        assert fake.asked["Predictions"] == asked + 1
        assert alone[2].best == (ScoredLabel("a", 0.5), ScoredLabel("b", 0.25))


async def test_what_is_not_registered_and_who_takes_one_document_are_asked_alone() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        queries = [Query("a", "1"), Query("a", "2")]
        assert await backend.predict_ready(queries, a_call()) == [None, None]
        assert not fake.asked
        await label(backend, "a")
        assert await backend.predict_ready(queries, a_call()) == [None, None]


async def test_a_handler_that_fails_at_a_group_gets_each_alone() -> None:
    async def fussy(inputs: Inputs) -> bytes:
        if b"poison" in inputs.get("documents", b""):
            raise HandlerError
        return await documents("a")(inputs)

    async with running(FakeTorchServe(a=Archive(fussy))) as fake, asking(fake) as backend:
        await label(backend, "a")
        coalescing = CoalescingBackend(backend, calls=1, group_of=backend.group_of)
        outcomes = await asyncio.gather(
            *(coalescing.predict(Query("a", document), a_call()) for document in ("1", "poison", "2")),
            return_exceptions=True,
        )
        assert [getattr(outcome, "label", None) for outcome in outcomes] == ["a 1", None, "a 2"]
        assert isinstance(outcomes[1], ServingError)


async def test_an_answer_with_a_document_too_few_is_given_to_nobody() -> None:
    async def short(inputs: Inputs) -> bytes:
        return b'{"results": [{"result": "a", "score": 1, "best": []}]}' if inputs else b'{"documents": true}'

    async with running(FakeTorchServe(a=Archive(short))) as fake, asking(fake) as backend:
        assert await label(backend, "a") == "a"
        assert await backend.predict_ready([Query("a", "1"), Query("a", "2")], a_call()) == [None, None]


async def test_a_batch_of_many_models_keeps_its_order_and_each_its_own_outcome() -> None:
    archives = {"a": Archive(documents("a")), "b": Archive(plain("b")), "c": Archive(plain("c"), readable=False)}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake) as backend:
        models = ["a", "b", "a", "c", UNPUBLISHED, "b", "a", "missing"]
        queries = [Query(model, str(number)) for number, model in enumerate(models)]
        outcomes = await backend.predict_batch(queries, a_call())
        assert [getattr(outcome, "label", None) for outcome in outcomes] == [
            *("a 0", "b 1", "a 2", None, None, "b 5", "a 6", None)
        ]
        kinds = [type(outcomes[index]) for index in (3, 4, 7)]
        assert kinds == [InvalidModelFile, ModelNotFound, ModelIncomplete]
        assert sum("documents" in request.input for request in fake.predictions) == 1


async def test_a_batch_of_very_many_goes_in_parts() -> None:
    async with running(FakeTorchServe(a=Archive(documents("a")))) as fake, asking(fake) as backend:
        queries = [Query("a", str(number)) for number in range(600)]
        outcomes = await backend.predict_batch(queries, a_call())
        assert [getattr(outcome, "label", "") for outcome in outcomes] == [f"a {number}" for number in range(600)]
        assert fake.asked["Predictions"] == 3


# The model that answers.


async def test_a_restarted_torchserve_gets_the_model_again() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        assert await label(backend, "a") == "a x"
        await fake.stop()
        with refused(Unavailable):
            await label(backend, "a")
        await fake.start()
        await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
        assert await label(backend, "a") == "a x"
        assert fake.registered == {"intent-1.0": "model-a.mar"}


async def test_a_restarted_torchserve_that_has_another_model_under_the_name_never_answers_for_it() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b")))) as fake, asking(fake) as backend:
        assert await label(backend, "a") == "a x"
        for _ in range(3):
            await fake.stop()
            await fake.start()
            fake.put("intent-1.0", "model-b.mar")
            await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
            assert await label(backend, "a") == "a x"


@pytest.mark.parametrize("handler", [plain, documents], ids=["plain", "documents"])
async def test_a_name_that_goes_to_another_model_never_answers_for_the_former(handler: Any) -> None:
    archives = {name: Archive(handler(name)) for name in ("a", "b")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake) as backend:
        assert await label(backend, "a") == "a x"
        # Another frontend unregisters the model, and registers its own model under the name.
        fake.remove("intent-1.0")
        fake.put("intent-1.0", "model-b.mar")
        assert await label(backend, "a") == "a x"
        outcomes = await backend.predict_batch([Query("a", "1"), Query("b", "2")], a_call())
        assert [getattr(outcome, "label", None) for outcome in outcomes] == ["a 1", "b 2"]


async def test_a_name_that_goes_to_another_model_while_it_is_asked_never_answers_for_the_former() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b")))) as fake, asking(fake) as backend:
        await label(backend, "a")

        async def change(_: Any) -> None:
            fake.before_answer = None
            fake.remove("intent-1.0")
            fake.put("intent-1.0", "model-b.mar")

        fake.before_answer = change
        assert await label(backend, "a") == "a x"
        assert fake.asked["Predictions"] == 3


async def test_a_name_that_goes_to_another_model_and_back_while_it_is_asked_is_asked_again() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        await label(backend, "a")

        async def change(_: Any) -> None:
            fake.before_answer = None
            fake.remove("intent-1.0")
            fake.put("intent-1.0", "model-a.mar")

        fake.before_answer = change
        assert await label(backend, "a") == "a x"
        assert fake.asked["Predictions"] == 3


async def test_a_registration_that_never_stays_is_told_and_not_asked_for_ever() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:

        async def change(_: Any) -> None:
            fake.remove("intent-1.0")
            fake.put("intent-1.0", "model-a.mar")

        fake.before_answer = change
        with refused(Unavailable, "keeps changing"):
            await label(backend, "a")
        assert fake.asked["Predictions"] == 2


async def test_a_model_that_somebody_unregisters_is_registered_again() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        await label(backend, "a")
        fake.remove("intent-1.0")
        assert await label(backend, "a") == "a x"


async def test_a_question_that_is_lost_because_somebody_unregisters_the_model_is_asked_again() -> None:
    asked = asyncio.Event()

    async def hang_once(inputs: Inputs) -> bytes:
        if inputs and not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return await plain("a")({"data": b"", **inputs})

    async with running(FakeTorchServe(a=Archive(hang_once))) as fake, asking(fake) as backend:
        waiting = asyncio.create_task(label(backend, "a"))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        fake.remove("intent-1.0")
        assert await waiting == "a x"


async def test_two_frontends_before_one_torchserve_never_mix_models_that_come_and_go() -> None:
    names = ("a", "b", "c", "d")
    async with (
        running(FakeTorchServe(**{name: Archive(plain(name)) for name in names})) as fake,
        asking(fake, most_models=2) as one,
        asking(fake, most_models=2) as other,
    ):
        answered = 0
        for turn in range(20):
            picked = [(backend, names[(turn + step) % 4]) for step, backend in enumerate((one, other, one))]
            outcomes = await asyncio.gather(*(label(*pick) for pick in picked), return_exceptions=True)
            for (_, name), outcome in zip(picked, outcomes, strict=True):
                assert outcome == f"{name} x" or isinstance(outcome, ServingError)
                answered += isinstance(outcome, str)
        assert answered > 20


async def test_answers_that_come_together_share_a_look() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        await label(backend, "a")
        before = fake.asked["DescribeModel"]
        await asyncio.gather(*(label(backend, "a", str(number)) for number in range(64)))
        assert fake.asked["DescribeModel"] - before < 32


# The models that stay registered.


async def test_the_least_recently_used_is_unregistered_and_comes_back_when_it_is_asked() -> None:
    names = ("a", "b", "c")
    archives = {name: Archive(plain(name)) for name in names}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=2) as backend:
        for name in ("a", "b", "a", "c"):
            assert await label(backend, name) == f"{name} x"
        assert set(fake.registered.values()) == {"model-a.mar", "model-c.mar"}
        assert await label(backend, "b") == "b x"
        assert set(fake.registered.values()) == {"model-b.mar", "model-c.mar"}


async def test_a_model_in_use_is_never_unregistered() -> None:
    held, free = asyncio.Event(), asyncio.Event()

    async def hold(inputs: Inputs) -> bytes:
        if inputs:
            held.set()
            await free.wait()
        return await plain("a")({"data": b"", **inputs})

    archives = {"a": Archive(hold), "b": Archive(plain("b")), "c": Archive(plain("c"))}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=1) as backend:
        asked = asyncio.create_task(label(backend, "a"))
        await asyncio.wait_for(held.wait(), PATIENCE)
        with refused(OutOfCapacity, "in use"):
            await label(backend, "b")
        assert set(fake.registered.values()) == {"model-a.mar"}
        free.set()
        assert await asked == "a x"
        assert await label(backend, "b") == "b x"
        assert set(fake.registered.values()) == {"model-b.mar"}


async def test_a_model_without_an_archive_makes_no_other_go() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake, most_models=1) as backend:
        await label(backend, "a")
        with refused(ModelIncomplete):
            await label(backend, "b")
        assert fake.asked["UnregisterModel"] == 0


async def test_what_others_have_registered_is_not_unregistered() -> None:
    archives = {name: Archive(plain(name)) for name in ("a", "b", "c")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=1) as backend:
        fake.put("intent-1.0", "model-a.mar")
        for name in ("a", "b", "c"):
            await label(backend, name)
        assert set(fake.registered.values()) == {"model-a.mar", "model-c.mar"}


async def test_what_others_have_registered_anew_is_not_unregistered() -> None:
    archives = {name: Archive(plain(name)) for name in ("a", "b")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=1) as backend:
        await label(backend, "a")
        fake.remove("intent-1.0")
        fake.put("intent-1.0", "model-a.mar")
        await label(backend, "b")
        assert set(fake.registered.values()) == {"model-a.mar", "model-b.mar"}


async def test_a_name_that_is_anothers_by_now_is_not_unregistered() -> None:
    archives = {name: Archive(plain(name)) for name in ("a", "b", "c")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=1) as backend:
        await label(backend, "a")
        fake.remove("intent-1.0")
        fake.put("intent-1.0", "model-b.mar")
        await label(backend, "c")
        assert fake.registered == {"intent-1.0": "model-b.mar", "intent-1.0@c": "model-c.mar"}


async def test_unload_unregisters_once_what_was_asked_is_answered() -> None:
    held, free = asyncio.Event(), asyncio.Event()

    async def hold(inputs: Inputs) -> bytes:
        if inputs:
            held.set()
            await free.wait()
        return await plain("a")({"data": b"", **inputs})

    async with running(FakeTorchServe(a=Archive(hold))) as fake, asking(fake) as backend:
        asked = asyncio.create_task(label(backend, "a"))
        await asyncio.wait_for(held.wait(), PATIENCE)
        unloading = asyncio.create_task(backend.unload(model_id("a"), a_call()))
        later = asyncio.create_task(label(backend, "a", "later"))
        await asyncio.sleep(0.05)
        assert fake.registered
        free.set()
        assert await asked == "a x"
        await unloading
        assert await later == "a later"
        assert fake.asked["RegisterModel"] == 2


async def test_unload_takes_what_others_have_registered_too_and_leaves_other_models() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")), b=Archive(plain("b")))) as fake, asking(fake) as backend:
        fake.put("intent-1.0", "model-b.mar")
        fake.put("intent-1.0@a", "model-a.mar")
        await backend.unload(model_id("a"), a_call())
        assert fake.registered == {"intent-1.0": "model-b.mar"}
        await backend.unload(model_id("a"), a_call())


async def test_a_removed_model_is_unregistered_with_its_last_manifest_or_none() -> None:
    archives = {name: Archive(plain(name)) for name in ("a", "b", "gone")}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake) as backend:
        for name in ("a", "b"):
            await label(backend, name)
        fake.put("mine-2.0", "model-gone.mar")
        last = Manifest(Algorithm="intent-classification", ModelName="mine", ModelVersion="2.0", classes={"0": "no"})
        await backend.forget([Removed(model_id("gone"), last), Removed(model_id("a"), None)], a_call())
        assert set(fake.registered.values()) == {"model-b.mar"}


# The engine itself.


async def test_an_engine_that_is_down_is_told_without_its_address() -> None:
    fake = FakeTorchServe()
    fake.inference_port, fake.management_port = free_port(), free_port()
    async with asking(fake) as backend:
        with refused(Unavailable) as caught:
            await label(backend, "a")
        assert "127.0.0.1" not in str(caught.value)
        assert str(caught.value) != INTERNAL_MESSAGE


async def test_it_is_ready_when_torchserve_answers() -> None:
    fake = FakeTorchServe()
    fake.inference_port, fake.management_port = free_port(), free_port()
    async with asking(fake) as backend:
        waiting = asyncio.create_task(backend.wait_until_ready())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        async with running(fake):
            await asyncio.wait_for(waiting, PATIENCE)


async def test_a_caller_that_leaves_ends_the_question_and_the_model_can_go() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(inputs: Inputs) -> bytes:
        if not inputs:
            return b"{}"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    archives = {"a": Archive(hang), "b": Archive(plain("b"))}
    async with running(FakeTorchServe(**archives)) as fake, asking(fake, most_models=1) as backend:
        caller = asyncio.create_task(label(backend, "a"))
        await asyncio.wait_for(started.wait(), PATIENCE)
        caller.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert await label(backend, "b") == "b x"


async def test_a_deadline_goes_with_the_question() -> None:
    async def hang(inputs: Inputs) -> bytes:
        if inputs:
            await asyncio.Event().wait()
        return b"{}"

    async with running(FakeTorchServe(a=Archive(hang))) as fake, asking(fake) as backend:
        with refused(DeadlineExceeded):
            await label(backend, "a", seconds=0.5)


async def test_closing_ends_what_is_under_way_and_tells_who_waits() -> None:
    archive = Archive(plain("a"), up=asyncio.Event())
    async with running(FakeTorchServe(a=archive)) as fake:
        async with asking(fake) as backend:
            waiting = asyncio.create_task(label(backend, "a"))
            await asyncio.wait_for(archive.waited_for.wait(), PATIENCE)
        with refused(Unavailable, "shutting down"):
            await waiting
