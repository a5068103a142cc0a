from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from intentctl.__main__ import app as intentctl
from intentctl.commands.predict import predict
from serving.domain.errors import DeadlineExceeded, InvalidModelFile, Unavailable
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Query, ScoredLabel
from tests.builders import a_prediction, hosted_frontend, publish, refusing_address
from tests.fakes.backend import FakeBackend

app = typer.Typer()
app.command()(predict)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Asking:
    """The command against one frontend, in a thread, because the frontend runs on the event loop."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __call__(self, *arguments: str, text: str | bytes | None = None) -> Result:
        command = [*arguments, "--frontend", self._address]
        return await asyncio.to_thread(CliRunner().invoke, app, command, input=text)


@asynccontextmanager
async def frontend(model_dir: Path, answer: Callable[[Query], Outcome] = a_prediction) -> AsyncIterator[Asking]:
    publish(model_dir, "a")
    async with hosted_frontend(model_dir, FakeBackend(answer)) as address:
        yield Asking(address)


def answer_by_document(query: Query) -> Outcome:
    match query.document:
        case "bad":
            return InvalidModelFile("model.pth is damaged")
        case "away":
            return Unavailable("try again")
        case "late":
            return DeadlineExceeded("the deadline of the call has passed")
        case _:
            return a_prediction(query)


async def test_off_a_terminal_answers_are_lines_with_tabs(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", "wake me up", "play [bold]music[/]")
        assert result.exit_code == 0
        assert [line.split("\t") for line in result.stdout.splitlines()] == [
            ["document", "label", "score"],
            ["wake me up", "wake me up", "0.500"],
            ["play [bold]music[/]", "play [bold]music[/]", "0.500"],
        ]
        assert result.stderr == ""


async def test_the_best_labels_follow_the_answer(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", "hello", "-k", "3")
        assert [line.split("\t") for line in result.stdout.splitlines()[1:]] == [
            ["hello", "hello", "0.500"],
            ["", "label-1", "0.250"],
            ["", "label-2", "0.125"],
        ]


async def test_json_has_everything_and_stands_alone_on_standard_output(tmp_path: Path) -> None:
    async with frontend(tmp_path, answer_by_document) as ask:
        result = await ask("a", "é😀", "bad", "-k", "1", "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == [
            {
                "document": "é😀",
                "label": "é😀",
                "score": 0.5,
                "best": [{"label": "label-0", "score": 0.5}],
                "fallback": None,
                "model": {"id": "a", "version": "1.0"},
            },
            {"document": "bad", "error": {"code": "FAILED_PRECONDITION", "message": "model.pth is damaged"}},
        ]


def answer_with_reasons(query: Query) -> Outcome:
    """Fall back if the query has a threshold, and explain if the query asks for an explanation."""
    prediction = a_prediction(query, "best")
    if query.threshold is not None:
        fallback = Fallback(ScoredLabel("best", 0.5), query.threshold)
        prediction = prediction._replace(label="oos", score=0.125, fallback=fallback)
    if query.explain is not None:
        parts = LabelExplanation("best", 2.0, 0.5, (1.75, -0.25))
        prediction = prediction._replace(explanation=Explanation(("wake", "up"), (1,), (parts,), 1.0))
    return prediction


async def test_an_answer_that_fell_back_has_the_best_label_beside_it(tmp_path: Path) -> None:
    async with frontend(tmp_path, answer_with_reasons) as ask:
        result = await ask("a", "hello", "-k", "2", "--threshold", "0.7")
        assert [line.split("\t") for line in result.stdout.splitlines()] == [
            ["document", "label", "score", "instead of"],
            ["hello", "oos", "0.125", "best (0.500 < 0.7)"],
            ["", "label-1", "0.250", ""],
        ]
        (told,) = json.loads((await ask("a", "hello", "--threshold", "0.7", "--json")).stdout)
        assert told["fallback"] == {"best_label": "best", "best_score": 0.5, "threshold": 0.7}
        assert (told["label"], told["score"]) == ("oos", 0.125)


async def test_what_each_word_adds_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    async with frontend(tmp_path, answer_with_reasons) as ask:
        result = await ask("a", "Wake up", "--explain")
        assert [line.split("\t") for line in result.stdout.splitlines()] == [
            ["document", "label", "score", "words"],
            ["Wake up", "best", "0.500", "wake+1.750 ~up~-0.250"],
        ]
        (told,) = json.loads((await ask("a", "Wake up", "--explain", "--json")).stdout)
        assert told["explanation"] == {
            "tokens": ["wake", "up"],
            "unknown": [1],
            "temperature": 1.0,
            "labels": [{"label": "best", "logit": 2.0, "bias": 0.5, "contributions": [1.75, -0.25]}],
        }


@pytest.mark.parametrize("option", ["--frontend", "--address"])
async def test_the_frontend_has_the_name_that_all_commands_give_it_and_the_former_one(
    option: str, tmp_path: Path
) -> None:
    publish(tmp_path, "a")
    async with hosted_frontend(tmp_path, FakeBackend(a_prediction)) as address:
        result = await asyncio.to_thread(CliRunner().invoke, intentctl, ["predict", "a", "hello", option, address])
        assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, ["hello\thello\t0.500"])


async def test_a_dash_reads_one_document_a_line(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", "-", "--json", text="first\n\n third \nlast")
        assert [row["document"] for row in json.loads(result.stdout)] == ["first", "", " third ", "last"]
        assert (await ask("a", "-", "--json", text="")).stdout == "[]\n"


async def test_more_documents_than_fit_into_a_batch_are_all_answered_in_order(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        texts = [f"document {number}" for number in range(600)]
        result = await ask("a", "-", "--json", text="\n".join(texts))
        assert [row["label"] for row in json.loads(result.stdout)] == texts


@pytest.mark.parametrize(
    ("documents", "code"),
    [
        (["good"], 0),
        (["good", "bad"], 1),
        (["good", "away"], 3),
        (["bad", "away"], 1),
        (["away", "away"], 3),
    ],
    ids=str,
)
async def test_the_exit_code_tells_how_it_went(documents: list[str], code: int, tmp_path: Path) -> None:
    async with frontend(tmp_path, answer_by_document) as ask:
        result = await ask("a", *documents)
        assert result.exit_code == code
        assert result.stderr.count("error:") == sum(document != "good" for document in documents)


async def test_an_unknown_model_is_told_in_plain_words(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("unknown", "x")
        assert result.exit_code == 1
        assert "error: NOT_FOUND: no model has the runId unknown; `intentctl models` lists" in result.stderr
        assert result.stdout == ""


async def test_a_frontend_that_does_not_answer_is_told_with_what_to_do() -> None:
    address = refusing_address()
    result = await Asking(address)("a", "x")
    assert result.exit_code == 3
    told = " ".join(result.stderr.split())
    assert f"no answer from {address}: nothing listens on port" in told
    assert "`intentctl up` starts the services" in told
    assert "Traceback" not in result.stderr


async def test_a_deadline_that_passes_is_told_as_such_and_no_start_is_advised() -> None:
    # The server accepts connections, and sends nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        result = await Asking(address)("a", "x", "--timeout", "0.3")
    assert result.exit_code == 3
    told = " ".join(result.stderr.split())
    assert f"no answer from {address} in time: the deadline of the call has passed" in told
    assert "allow more time with --timeout" in told
    assert "intentctl up" not in told


async def test_one_document_that_is_late_is_told_with_what_to_do(tmp_path: Path) -> None:
    async with frontend(tmp_path, answer_by_document) as ask:
        result = await ask("a", "good", "late")
        assert result.exit_code == 3
        assert "DEADLINE_EXCEEDED" in result.stderr
        assert "allow more time with --timeout" in result.stderr


async def test_a_batch_that_is_refused_as_a_whole_is_asked_in_parts(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", *["x"] * 9)
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) == 1 + 9


async def test_one_document_too_large_costs_the_others_nothing(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", "x", "y" * 3_000_000, "z")
        assert result.exit_code == 1
        assert len(result.stdout.splitlines()) == 1 + 2
        assert "RESOURCE_EXHAUSTED" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        [],
        ["a", "x", "-k", "-1"],
        ["a", "x", "--threshold", "1.1"],
        ["a", "x", "--timeout", "0"],
        ["a", "x", "--no-such-flag"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


async def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        result = await ask("a", "-", "--json", text=b"\xef\xbb\xbfwake me\r\n\r\nup\r\n")
        assert result.exit_code == 0
        assert [answer["document"] for answer in json.loads(result.stdout)] == ["wake me", "", "up"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:51001", "::1:51001", "localhost"])
def test_what_is_no_address_is_a_wrong_call_of_the_command(address: str) -> None:
    result = CliRunner().invoke(app, ["a", "x", "--frontend", address])
    assert result.exit_code == 2
    assert "cannot be used" in result.output
