from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client import AsyncIntentClient, IntentClient
from intent_serving_client.management_client import ManagementClient
from serving.domain.errors import (
    DeadlineExceeded,
    DocumentTooLarge,
    InvalidRequest,
    ModelNotFound,
    ModelUnusable,
    OutOfCapacity,
    ServingError,
    Unavailable,
    status_of,
)
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from tests.builders import PATIENCE, a_prediction, hosted_frontend, publish, refusing_address
from tests.conftest import ROOT
from tests.fakes.backend import FakeBackend
from tests.fakes.hanging_backend import FakeHangingBackend


class InThread:
    """The blocking client, each call in a thread, because the service lives on the event loop."""

    def __init__(self, client: IntentClient) -> None:
        self._client = client

    async def predict(self, model_id: str, document: str, **options: Any) -> Prediction:
        return await asyncio.to_thread(self._client.predict, model_id, document, **options)

    async def explain(self, model_id: str, document: str, *labels: Any, **options: Any) -> Prediction:
        return await asyncio.to_thread(self._client.explain, model_id, document, *labels, **options)

    async def predict_batch(self, queries: list[Query], **options: Any) -> list[Outcome]:
        return await asyncio.to_thread(self._client.predict_batch, queries, **options)


@asynccontextmanager
async def connected(kind: str, address: str, **options: Any) -> AsyncIterator[AsyncIntentClient | InThread]:
    if kind in ("asyncio", "fast"):
        async with AsyncIntentClient(address, options=ChannelOptions(fast=kind == "fast"), **options) as client:
            yield client
    else:
        with IntentClient(address, **options) as blocking:
            yield InThread(blocking)


ALL = pytest.mark.parametrize("kind", ["blocking", "asyncio", "fast"])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "a")
    publish(tmp_path, "lost", Algorithm="no engine has this")
    return tmp_path


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@ALL
async def test_a_prediction_comes_with_score_best_labels_and_model(kind: str, models: Path) -> None:
    async with hosted_frontend(models, FakeBackend()) as address, connected(kind, address) as client:
        assert await client.predict("a", "wake me up", k=2) == a_prediction(Query("a", "wake me up", 2))
        assert (await client.predict("a", "x")).best == ()


def explained(query: Query) -> Prediction:
    """Answer as an engine that explains, with the threshold and the labels of the query."""
    answer = a_prediction(query)
    if query.threshold is not None:
        answer = answer._replace(label="oos", fallback=Fallback(ScoredLabel("best", 0.25), query.threshold))
    if query.explain is None:
        return answer
    parts = tuple(LabelExplanation(label, 1.5, 0.5, (1.0,)) for label in ("best", *query.explain))
    return answer._replace(explanation=Explanation((query.document,), (0,), parts, 2.0))


@ALL
async def test_a_threshold_and_labels_to_explain_reach_the_engine_and_what_it_tells_comes_back(
    kind: str, models: Path
) -> None:
    async with hosted_frontend(models, FakeBackend(explained)) as address, connected(kind, address) as client:
        for query in (
            Query("a", "x"),
            Query("a", "x", threshold=0.7),
            Query("a", "x", threshold=0.0),
            Query("a", "x", explain=()),
            Query("a", "x", 1, 0.5, ("é", "b")),
        ):
            options: dict[str, Any] = {"k": query.k, "threshold": query.threshold, "explain": query.explain}
            assert await client.predict("a", "x", **options) == explained(query)
        assert await client.explain("a", "x") == explained(Query("a", "x", explain=()))
        assert await client.explain("a", "x", ["é"]) == explained(Query("a", "x", explain=("é",)))
        assert await client.explain("a", "x", threshold=0.3) == explained(Query("a", "x", threshold=0.3, explain=()))


@ALL
async def test_an_engine_that_explains_nothing_is_not_taken_for_one_that_does(kind: str, models: Path) -> None:
    async with hosted_frontend(models, FakeBackend()) as address, connected(kind, address) as client:
        with pytest.raises(ModelUnusable, match="explain"):
            await client.explain("a", "x")
        with pytest.raises(ModelUnusable, match="explain"):
            await client.predict("a", "x", explain=())
        refused, answered = await client.predict_batch([Query("a", "x", explain=()), Query("a", "y")])
        assert isinstance(refused, ModelUnusable)
        assert answered == a_prediction(Query("a", "y"))


@ALL
@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"threshold": math.nan}, {"explain": ["x"] * 257}], ids=str)
async def test_what_cannot_be_asked_is_refused(kind: str, options: dict[str, Any], models: Path) -> None:
    backend = FakeBackend(explained)
    async with hosted_frontend(models, backend) as address, connected(kind, address) as client:
        with pytest.raises(InvalidRequest):
            await client.predict("a", "x", **options)
    assert backend.batches == []


@ALL
@pytest.mark.parametrize(
    ("model_id", "document", "error"),
    [
        ("unknown", "x", ModelNotFound),
        ("lost", "x", ModelUnusable),
        ("../a", "x", InvalidRequest),
        ("a", "x" * 5000, InvalidRequest),
        ("a", "x" * 300_000, OutOfCapacity),
    ],
    ids=["unknown", "no-engine", "bad-id", "too-large", "message-too-large"],
)
async def test_failures_are_told_as_errors_of_the_tree(
    kind: str, model_id: str, document: str, error: type[ServingError], models: Path
) -> None:
    async with (
        hosted_frontend(models, FakeBackend(), max_message_bytes=100_000) as address,
        connected(kind, address) as client,
    ):
        with pytest.raises(error) as caught:
            await client.predict(model_id, document)
        assert str(caught.value)
        with pytest.raises(error) as of_explanation:
            await client.explain(model_id, document)
        assert str(of_explanation.value) == str(caught.value)


@ALL
async def test_a_bug_of_the_service_is_told_as_internal(kind: str, models: Path) -> None:
    backend = FakeBackend(failure=ZeroDivisionError("secret"))
    async with hosted_frontend(models, backend) as address, connected(kind, address) as client:
        with pytest.raises(ServingError) as caught:
            await client.predict("a", "x")
        assert status_of(caught.value).code.name == "INTERNAL"
        assert "secret" not in str(caught.value)


@ALL
async def test_each_query_of_a_batch_has_its_own_outcome(kind: str, models: Path) -> None:
    def answer(query: Query) -> Outcome:
        return DocumentTooLarge("shorten it") if query.document == "2" else a_prediction(query)

    async with hosted_frontend(models, FakeBackend(answer)) as address, connected(kind, address) as client:
        queries = [Query("a", "1"), Query("a", "2"), Query("unknown", "3"), Query("a", "4", k=1)]
        first, second, third, fourth = await client.predict_batch(queries)
        assert (first, fourth) == (a_prediction(queries[0]), a_prediction(queries[3]))
        assert isinstance(second, InvalidRequest)
        assert str(second) == "shorten it"
        assert isinstance(third, ModelNotFound)
        assert await client.predict_batch([]) == []


@ALL
async def test_a_batch_that_is_refused_as_a_whole_raises(kind: str, models: Path) -> None:
    async with hosted_frontend(models, FakeBackend()) as address, connected(kind, address) as client:
        with pytest.raises(InvalidRequest, match="8"):
            await client.predict_batch([Query("a", "x")] * 9)


@ALL
@pytest.mark.parametrize("where", ["client", "call"])
async def test_a_call_ends_with_its_timeout(kind: str, where: str, models: Path) -> None:
    of_client, of_call = (0.2, None) if where == "client" else (3600.0, 0.2)
    async with (
        hosted_frontend(models, FakeHangingBackend()) as address,
        connected(kind, address, timeout=of_client) as client,
    ):
        with pytest.raises(DeadlineExceeded):
            await client.predict("a", "x", timeout=of_call)
        with pytest.raises(DeadlineExceeded):
            await client.predict_batch([Query("a", "x")], timeout=of_call)


@ALL
async def test_a_frontend_that_is_down_is_told_with_its_address_and_the_cause(kind: str) -> None:
    address = refusing_address()
    async with connected(kind, address) as client:
        for call in (client.predict("a", "x"), client.predict_batch([Query("a", "x")])):
            with pytest.raises(Unavailable, match=f"no answer from {address}: nothing listens on port"):
                await call


@pytest.mark.parametrize("client", [IntentClient, AsyncIntentClient, ManagementClient])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("fast", r"options=ChannelOptions\(fast=...\)"),
        ("credentials", r"options=ChannelOptions\(credential=...\)"),
        ("timeouts", "write timeout=..."),
        ("colour", "it has address, timeout, options"),
    ],
)
def test_an_argument_that_no_client_has_is_refused_with_the_right_one(client: Any, name: str, instead: str) -> None:
    with pytest.raises(TypeError, match=f"{client.__name__} has no argument '{name}'; .*{instead}"):
        client(refusing_address(), **{name: True})


async def test_a_closed_blocking_client_asks_nobody(models: Path) -> None:
    backend = FakeBackend()
    async with hosted_frontend(models, backend) as address:
        client = IntentClient(address)
        client.close()
        client.close()
        with pytest.raises(ValueError, match="closed"):
            await asyncio.to_thread(client.predict, "a", "x")
    assert backend.batches == []


@pytest.mark.parametrize("fast", [False, True])
async def test_a_closed_asyncio_client_asks_nobody(models: Path, fast: bool) -> None:
    backend = FakeBackend()
    async with hosted_frontend(models, backend) as address:
        client = AsyncIntentClient(address, options=ChannelOptions(fast=fast))
        await client.close()
        await client.close()
        with pytest.raises(ValueError, match="closed"):
            await client.predict("a", "x")
    assert backend.batches == []


async def test_a_blocking_client_serves_threads_at_the_same_time(models: Path) -> None:
    class FakeMeeting(FakeBackend):
        async def predict_batch(self, queries: Any, call: Any) -> Any:
            await asyncio.wait_for(together.wait(), PATIENCE)
            return await super().predict_batch(queries, call)

    together = asyncio.Barrier(5)
    async with hosted_frontend(models, FakeMeeting()) as address:
        with IntentClient(address, timeout=PATIENCE) as client:
            threads = (asyncio.to_thread(client.predict, "a", str(number)) for number in range(5))
            answers = await asyncio.gather(*threads)
    assert [answer.label for answer in answers] == [*"01234"]


@pytest.mark.parametrize("fast", [False, True])
async def test_a_caller_that_leaves_cancels_its_call_all_the_way_down(models: Path, fast: bool) -> None:
    backend = FakeHangingBackend()
    options = ChannelOptions(fast=fast)
    async with hosted_frontend(models, backend) as address, AsyncIntentClient(address, options=options) as client:
        caller = asyncio.create_task(client.predict("a", "x"))
        await asyncio.wait_for(backend.started.wait(), PATIENCE)
        caller.cancel()
        await asyncio.wait_for(backend.cancelled.wait(), PATIENCE)
        await asyncio.wait([caller], timeout=PATIENCE)
        assert caller.cancelled()


def test_an_asyncio_client_writes_nothing_to_standard_output() -> None:
    program = (
        "import asyncio, contextlib\n"
        "from serving.client import AsyncIntentClient, ServingError\n"
        "async def main():\n"
        f"    async with AsyncIntentClient({refusing_address()!r}, timeout=5) as client:\n"
        "        with contextlib.suppress(ServingError):\n"
        "            await client.predict('a', 'x')\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)
    assert ended.stdout == b""
    assert b"server is unavailable" in ended.stderr
