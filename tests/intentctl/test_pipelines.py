"""Every command of the command line on a pipeline: its own commands, and those for models of any kind."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from typer.testing import Result

from frontend.grpc.servicer import prediction_service
from intentctl.output import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE
from serving.domain.errors import Unavailable
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.manifest import Manifest
from serving.domain.prediction import Fallback, Outcome, Query, ScoredLabel
from tests.builders import a_prediction, hosted, publish, refusing_address
from tests.conftest import ROOT
from tests.frontend.pipelines.plane import AtOnce, plane
from tests.intentctl.archives import intentctl

PNG: Final = b"\x89PNG\r\n\x1a\n"
SAMPLES: Final = ROOT / "models"
DOMAINS: Final[dict[str, Any]] = {
    "ask": "router",
    "route": {"bank": "bank", "loans": "bank", "travel": "travel"},
    "otherwise": "large",
}
FAULTY: Final[dict[str, Any]] = {
    "Start": "first",
    "Steps": {
        "first": {"ask": "router", "route": {"bank": "gone", "food": "bank"}},
        "bank": {"ask": ["bank", "also-gone"], "vote": "mean", "otherwise": "faulty"},
    },
}
FAULTS_OF_MODELS: Final = (
    'step "gone" asks gone: no model has the runId gone',
    'step "bank" asks also-gone: no model has the runId also-gone',
    'step "faulty" leads back to the pipeline itself: faulty -> faulty',
    'step "first" has a route for "food", but router has no label of this name',
    'step "first" has no route for "loans", "travel", and no "otherwise"',
)
UNREADABLE: Final[dict[str, Any]] = {
    "Start": "nowhere",
    "Steps": {"first": {"ask": "../router", "otherwise": "first"}, "second": {"when": "score > 1"}},
}
FAULTS_OF_STEPS: Final = (
    'step "first" asks "../router", which is no model id',
    'step "first" leads to itself',
    'step "second" has "when", which no step has',
    "Start must name the first step",
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with four models, and a pipeline over them."""
    folder = tmp_path / "models"
    folder.mkdir()
    publish(folder, "router", classes={"0": "bank", "1": "loans", "2": "travel"})
    for name in ("bank", "travel", "large"):
        publish(folder, name)
    pipeline(folder, "domains", Start="domain", Steps={"domain": DOMAINS})
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text("text,label\nmy balance,yes\nmy flight,no\n")
    return path


def pipeline(root: Path, model_id: str, **keys: Any) -> Path:
    return publish(root, model_id, files={}, **{"Algorithm": "pipeline", "classes": {}, "ModelVersion": "1.0"} | keys)


def run(*arguments: object) -> Result:
    """Run the command line; no outcome may be a traceback."""
    result = intentctl(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def rows_of(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


class TestCheck:
    def test_a_pipeline_without_faults_ends_with_zero(self, models: Path) -> None:
        result = run("pipeline", "check", "domains", "--model-dir", models)
        assert (result.exit_code, result.stdout) == (0, "domains has no faults: 1 step, 4 models\n")
        as_json = run("pipeline", "check", "domains", "--model-dir", models, "--json")
        assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, {"pipeline": "domains", "faults": []})

    def test_every_fault_is_told_at_once(self, models: Path) -> None:
        pipeline(models, "faulty", **FAULTY)
        result = run("pipeline", "check", "faulty", "--model-dir", models)
        head, *rows = rows_of(result)
        assert (result.exit_code, head) == (EXIT_FAILED, ["fault"])
        as_json = run("pipeline", "check", "faulty", "--model-dir", models, "--json")
        faults = json.loads(as_json.stdout)["faults"]
        assert (as_json.exit_code, [[fault] for fault in faults]) == (EXIT_FAILED, rows)
        assert len(faults) == len(FAULTS_OF_MODELS)
        for told in FAULTS_OF_MODELS:
            assert any(fault.startswith(told) for fault in faults), told

    def test_every_fault_of_a_definition_that_cannot_be_read_is_told_at_once(self, models: Path) -> None:
        pipeline(models, "unreadable", **UNREADABLE)
        result = run("pipeline", "check", "unreadable", "--model-dir", models)
        assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
        as_json = run("pipeline", "check", "unreadable", "--model-dir", models, "--json")
        written = json.loads(as_json.stdout)
        assert (as_json.exit_code, written["pipeline"]) == (EXIT_FAILED, "unreadable")
        for told in FAULTS_OF_STEPS:
            assert told in said(result)
            assert told in " ".join(written["faults"])

    def test_a_folder_that_is_not_published_is_checked_under_its_future_id(self, models: Path, tmp_path: Path) -> None:
        folder = pipeline(tmp_path, "draft", Start="first", Steps={"first": {"ask": "bank", "otherwise": "domains"}})
        assert run("pipeline", "check", folder, "--model-dir", models).stdout.startswith("draft has no faults")
        circle = run("pipeline", "check", folder, "--model-dir", models, "--as", "domains")
        assert circle.exit_code == EXIT_FAILED
        assert 'step "domains" leads back to the pipeline itself: domains -> domains' in circle.stdout

    def test_pipelines_that_ask_each_other_in_a_circle_behind_a_route_are_told(self, models: Path) -> None:
        for name, other in (("here", "there"), ("there", "here")):
            pipeline(models, name, Start="a", Steps={"a": {"ask": other}})
        steps = {"a": {"ask": "here", "route": {"yes": "bank"}, "otherwise": "bank"}}
        pipeline(models, "outside", Start="a", Steps=steps)
        result = run("pipeline", "check", "outside", "--model-dir", models)
        assert result.exit_code == EXIT_FAILED
        assert "leads back to the pipeline itself: outside -> here -> there -> here" in result.stdout

    @pytest.mark.parametrize("command", ["check", "draw"])
    @pytest.mark.parametrize(
        ("target", "code", "told"),
        [
            ("bank", EXIT_FAILED, 'bank is not a pipeline, whose Algorithm is "pipeline": its Algorithm is "intent-'),
            ("nothing", EXIT_FAILED, "no model has the runId nothing"),
            ("../nothing", EXIT_USAGE, "there is no such folder: ../nothing"),
            ("not,an,id", EXIT_USAGE, "the model id must be"),
            ("unreadable", EXIT_FAILED, 'step "second" has "when"'),
            ("no-json", EXIT_FAILED, "manifest.json cannot be read: it is not valid JSON at line 1"),
        ],
        ids=["a model", "nothing", "no folder", "no id", "unreadable", "no json"],
    )
    def test_what_is_no_pipeline_is_told(self, command: str, target: str, code: int, told: str, models: Path) -> None:
        pipeline(models, "unreadable", **UNREADABLE)
        publish(models, "no-json", files={})
        (models / "no-json" / "manifest.json").write_text("{")
        result = run("pipeline", command, target, "--model-dir", models)
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in said(result)

    @pytest.mark.parametrize("command", ["check", "draw"])
    def test_a_released_name_is_its_stable_version(self, command: str, models: Path) -> None:
        for version in ("1", "2"):
            pipeline(models, f"bot/{version}", ModelVersion=version, Start="a", Steps={"a": {"ask": "bank"}})
        (models / "bot" / "release.json").write_text('{"revision": 1, "stable": "2"}')
        result = run("pipeline", command, "bot", "--model-dir", models)
        assert result.exit_code == 0, said(result)
        assert result.stdout.startswith("bot@2 ")

    def test_a_manifest_stands_for_its_folder(self, models: Path) -> None:
        manifest = models / "domains" / "manifest.json"
        result = run("pipeline", "check", manifest, "--model-dir", models)
        assert result.stdout == "domains has no faults: 1 step, 4 models\n"

    def test_rights_that_it_gives_are_told(self, models: Path) -> None:
        pipeline(models, "open", Start="a", Steps={"a": {"ask": "bank", "otherwise": "large"}}, Rights="pipeline")
        result = run("pipeline", "check", "open", "--model-dir", models)
        assert result.exit_code == 0
        assert '"Rights": "pipeline" gives all of its callers the answers of bank, large' in said(result)

    def test_an_id_that_is_none_is_a_wrong_call(self, models: Path) -> None:
        result = run("pipeline", "check", models / "domains", "--as", "a/b", "--model-dir", models)
        assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")


class TestDraw:
    def test_it_is_text_off_a_terminal(self, models: Path) -> None:
        result = run("pipeline", "draw", "domains", "--model-dir", models)
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "domains (version 1.0)",
            "start: domain asks router",
            "  bank, loans -> bank",
            "  travel -> travel",
            "  otherwise -> large",
        ]

    def test_a_step_named_like_its_model_is_drawn(self, models: Path) -> None:
        pipeline(models, "alone", Start="bank", Steps={"bank": {"ask": "bank"}})
        drawn = run("pipeline", "draw", "alone", "--model-dir", models).stdout.splitlines()
        assert drawn == ["alone (version 1.0)", "start: bank asks bank"]

    def test_it_is_json_for_programs(self, models: Path) -> None:
        told = json.loads(run("pipeline", "draw", "domains", "--model-dir", models, "--json").stdout)
        assert (told["pipeline"], told["start"]) == ("domains", "domain")
        assert told["steps"].keys() == {"domain", "bank", "travel", "large"}
        assert told["steps"]["domain"] == {
            "does": "asks router",
            "routes": [{"labels": ["bank", "loans"], "next": "bank"}, {"labels": ["travel"], "next": "travel"}],
            "otherwise": "large",
        }
        assert told["steps"]["bank"] == {"does": "asks bank", "routes": [], "otherwise": None}

    @pytest.mark.parametrize("name", ["clinc150-by-domain", "banking77-in-scope"])
    def test_it_is_a_picture_on_request(self, name: str, tmp_path: Path) -> None:
        png, svg = tmp_path / "it.png", tmp_path / "it.svg"
        for path in (png, svg):
            result = run("pipeline", "draw", name, "--model-dir", SAMPLES, "--output", path)
            assert (result.exit_code, result.stdout) == (0, f"wrote {path}\n")
        assert png.read_bytes().startswith(PNG)
        assert "<svg" in svg.read_text()

    @pytest.mark.parametrize("name", ["it.pdf", "it", "png"])
    def test_another_extension_is_a_wrong_call(self, name: str, models: Path, tmp_path: Path) -> None:
        result = run("pipeline", "draw", "domains", "--model-dir", models, "--output", tmp_path / name)
        assert result.exit_code == EXIT_USAGE
        assert "--output must end with .png or .svg" in said(result)
        assert not (tmp_path / name).exists()

    def test_a_picture_that_cannot_be_written_is_told(self, models: Path, tmp_path: Path) -> None:
        path = tmp_path / "absent" / "it.png"
        result = run("pipeline", "draw", "domains", "--model-dir", models, "--output", path)
        assert result.exit_code == EXIT_FAILED
        assert "cannot be written: No such file or directory" in said(result)

    def test_labels_of_any_text_are_drawn_as_they_are_written(self, models: Path, tmp_path: Path) -> None:
        labels = {"\x1b[2J": "bank", "$x^$\n": "travel", "long " * 100_000: "large", "\U0010ffff": "domains"}
        step = {"ask": "router", "route": labels, "otherwise": "large"}
        pipeline(models, "hostile", Start="a", Steps={"a": step})
        drawn = run("pipeline", "draw", "hostile", "--model-dir", models).stdout
        assert "\x1b" not in drawn
        for path in (tmp_path / "it.svg", tmp_path / "it.png"):
            result = run("pipeline", "draw", "hostile", "--model-dir", models, "-o", path)
            assert result.exit_code == 0, said(result)
        drawn = (tmp_path / "it.svg").read_text()
        assert "$x^$" in drawn
        assert "\x1b" not in drawn


class TestPublish:
    def test_a_good_pipeline_is_published_whole(self, models: Path, tmp_path: Path) -> None:
        folder = pipeline(tmp_path, "draft", Start="domain", Steps={"domain": DOMAINS})
        result = run("publish", folder, "mine@1", "--model-dir", models)
        assert (result.exit_code, result.stdout) == (0, "published mine@1 (version 1.0)\n"), said(result)
        published = models / "mine" / "1"
        assert [path.name for path in published.iterdir()] == ["manifest.json"]
        read = Manifest.parse((published / "manifest.json").read_bytes())
        assert read.pipeline == Manifest.parse((folder / "manifest.json").read_bytes()).pipeline

    @pytest.mark.parametrize(
        ("keys", "faults"), [(FAULTY, FAULTS_OF_MODELS), (UNREADABLE, FAULTS_OF_STEPS)], ids=["models", "steps"]
    )
    def test_a_bad_pipeline_is_refused_with_every_fault(
        self, keys: dict[str, Any], faults: tuple[str, ...], models: Path, tmp_path: Path
    ) -> None:
        before = sorted(path.name for path in models.iterdir())
        result = run("publish", pipeline(tmp_path, "draft", **keys), "faulty", "--model-dir", models)
        assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
        for told in faults:
            assert told in said(result), told
        assert sorted(path.name for path in models.iterdir()) == before

    def test_a_pipeline_in_service_is_not_replaced_by_a_bad_one(self, models: Path, tmp_path: Path) -> None:
        before = (models / "domains" / "manifest.json").read_bytes()
        bad = pipeline(tmp_path, "draft", **FAULTY)
        assert run("publish", bad, "domains", "--model-dir", models, "--replace").exit_code == EXIT_FAILED
        assert (models / "domains" / "manifest.json").read_bytes() == before


class TestModelsOfAnyKind:
    def test_models_lists_it_as_complete_without_a_tokenizer(self, models: Path) -> None:
        rows = {row["id"]: row for row in json.loads(run("models", "--model-dir", models, "--json").stdout)}
        size = (models / "domains" / "manifest.json").stat().st_size
        assert rows["domains"] == {
            "id": "domains",
            "version": "1.0",
            "algorithm": "pipeline",
            "labels": None,
            "tokenizer": "",
            "bytes": size,
            "state": "complete",
        }
        assert ["domains", "1.0", "pipeline", "", "", str(size), "complete"] in rows_of(
            run("models", "--model-dir", models)
        )

    def test_models_tells_what_is_wrong_with_a_bad_one(self, models: Path) -> None:
        pipeline(models, "unreadable", **UNREADABLE)
        rows = {row["id"]: row for row in json.loads(run("models", "--model-dir", models, "--json").stdout)}
        assert all(told in rows["unreadable"]["state"] for told in FAULTS_OF_STEPS)

    def test_whoever_asks_a_model_is_told_when_it_is_deleted(self, models: Path) -> None:
        pipeline(models, "voting", Start="v", Steps={"v": {"ask": ["bank@1", "large"], "vote": "mean"}})
        deleted = run("delete", "bank", "--force", "--model-dir", models)
        assert (deleted.exit_code, deleted.stdout) == (0, "deleted bank\n")
        assert 'the pipeline domains asks it, in step "bank"' in said(deleted)
        assert 'the pipeline voting asks it, in step "v"' in said(deleted)
        alone = run("delete", "domains", "--force", "--model-dir", models)
        assert (alone.exit_code, said(alone)) == (0, "")

    def test_no_predictor_has_it(self, models: Path) -> None:
        result = run("doctor", "domains", "--model-dir", models, "--predictor", "127.0.0.1:1")
        assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
        assert "no predictor has a pipeline" in said(result)

    def test_the_doctor_examines_its_steps(self, models: Path) -> None:
        pipeline(models, "faulty", **FAULTY)
        healthy = run("doctor", "domains", "--model-dir", models, "--json")
        assert healthy.exit_code == 0
        (noted,) = json.loads(healthy.stdout)["findings"]
        assert (noted["severity"], noted["check"]) == ("note", "pipeline")
        assert "the model is a pipeline" in noted["problem"]
        faulty = run("doctor", "faulty", "--model-dir", models, "--json")
        assert faulty.exit_code == EXIT_FAILED
        findings = json.loads(faulty.stdout)["findings"]
        wrong = [finding["problem"] for finding in findings if finding["check"] == "wrong-step"]
        assert len(wrong) == len(FAULTS_OF_MODELS)
        assert all(any(problem.startswith(told) for problem in wrong) for told in FAULTS_OF_MODELS)
        assert {finding["severity"] for finding in findings} == {"error", "note"}

    def test_the_doctor_tells_why_a_definition_cannot_be_read(self, models: Path) -> None:
        pipeline(models, "unreadable", **UNREADABLE)
        result = run("doctor", "unreadable", "--model-dir", models, "--json")
        assert result.exit_code == EXIT_FAILED
        (wrong,) = [row["problem"] for row in json.loads(result.stdout)["findings"] if row["check"] == "wrong-step"]
        assert all(told in wrong for told in FAULTS_OF_STEPS)
        assert "model.pth" not in result.stdout

    @pytest.mark.parametrize("name", ["clinc150-by-domain", "banking77-in-scope"])
    def test_the_sample_pipelines_are_healthy(self, name: str) -> None:
        for command in (("doctor",), ("pipeline", "check")):
            result = run(*command, name, "--model-dir", SAMPLES)
            assert result.exit_code == 0, result.output

    @pytest.mark.parametrize(
        "command",
        [
            lambda models, texts: ("evaluate", "domains", texts, "--model-dir", models),
            lambda models, texts: ("compare", "domains", "domains", texts, "--model-dir", models),
            lambda models, texts: ("explain", "domains", "my balance", "--model-dir", models),
            lambda models, texts: (
                *("export", "domains", "--torchserve", "--model-dir", models),
                *("--model-store", texts.parent, "--publish-as", "copy"),
            ),
        ],
        ids=["evaluate", "compare", "explain", "export"],
    )
    def test_what_needs_weights_is_refused_in_plain_words(
        self, command: Callable[[Path, Path], tuple[object, ...]], models: Path, texts: Path
    ) -> None:
        before = sorted(path.name for path in models.iterdir())
        result = run(*command(models, texts))
        assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
        assert "the model is a pipeline, which has no weights of its own; ask a frontend" in said(result)
        assert ".pth" not in result.stderr
        assert sorted(path.name for path in models.iterdir()) == before
        assert not list(texts.parent.glob("*.mar"))

    @pytest.mark.parametrize("command", ["evaluate", "compare", "explain", "export", "doctor"])
    def test_a_folder_instead_of_an_id_is_a_wrong_call(self, command: str, models: Path, texts: Path) -> None:
        arguments: dict[str, tuple[object, ...]] = {
            "evaluate": (texts,),
            "compare": ("domains", texts),
            "explain": ("my balance",),
            "export": ("--torchserve",),
            "doctor": (),
        }
        result = run(command, models / "domains", *arguments[command], "--model-dir", models)
        code = EXIT_FAILED if command == "explain" else EXIT_USAGE
        assert (result.exit_code, result.stdout) == (code, ""), said(result)
        assert "must be 1 to 128 ASCII letters" in said(result)


def answer(query: Query) -> Outcome:
    """Answer as models that route by the first word, and explain each answer by one token."""
    first = query.document.split(" ")[0]
    if query.model_id == "router":
        prediction = a_prediction(query, first)
        if first == "unsure":
            return prediction._replace(label="oos", score=0.1, fallback=Fallback(ScoredLabel("bank", 0.3), 0.5))
        return prediction
    if first == "travel":
        return Unavailable("try again")
    prediction = a_prediction(query, "yes")
    if query.explain is None:
        return prediction
    parts = LabelExplanation("yes", 2.0, 0.5, (1.5,))
    return prediction._replace(explanation=Explanation(("word",), (), (parts,), 1.0))


@asynccontextmanager
async def frontend(models: Path) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that runs a command against a frontend, in a thread: the frontend runs on the event loop."""
    engine = AtOnce(answer)
    engine.answer = answer
    async with plane(models, engine) as predictions, hosted(models, prediction_service(predictions)) as address:

        async def ask(*arguments: object) -> Result:
            return await asyncio.to_thread(run, *arguments, "--frontend", address)

        yield ask


class TestAsking:
    async def test_the_path_is_a_column_on_request(self, models: Path) -> None:
        async with frontend(models) as ask:
            result = await ask("predict", "domains", "bank please", "unsure please", "--path")
            without = await ask("predict", "domains", "bank please")
            of_a_model = await ask("predict", "bank", "bank please", "--path")
        assert result.exit_code == 0
        head, *rows = rows_of(result)
        assert head == ["document", "label", "score", "path"]
        paths = [re.sub(r"\d+\.\d ms", "T ms", row[3]) for row in rows]
        assert paths == [
            "domain: bank 0.500, routed (T ms) > bank: yes 0.500 (T ms)",
            "domain: oos 0.100 instead of bank (0.300 < 0.5), fell back (T ms) > large: yes 0.500 (T ms)",
        ]
        assert rows_of(without)[0] == rows_of(of_a_model)[0] == ["document", "label", "score"]

    async def test_the_path_is_in_the_json(self, models: Path) -> None:
        async with frontend(models) as ask:
            (told,) = json.loads((await ask("predict", "domains", "bank please", "--path", "--json")).stdout)
        assert told["model"] == {"id": "domains", "version": "1.0"}
        first, last = told["path"]
        assert first["milliseconds"] >= 0
        assert (first["name"], first["label"], first["onward"], first["next"]) == ("domain", "bank", "ROUTED", "bank")
        assert first["models"] == [{"id": "router", "version": "1.0"}]
        assert (last["name"], last["onward"]) == ("bank", "ANSWERED")

    async def test_a_step_that_fails_is_named(self, models: Path) -> None:
        async with frontend(models) as ask:
            result = await ask("predict", "domains", "travel please", "--path")
        assert (result.exit_code, result.stdout) == (EXIT_UNAVAILABLE, "")
        assert 'UNAVAILABLE: step "travel" of domains: try again' in said(result)

    async def test_it_is_measured_and_compared_and_explained_behind_a_frontend(self, models: Path, texts: Path) -> None:
        texts.write_text("text,label\nbank please,yes\nloans please,yes\nunsure please,no\n")
        async with frontend(models) as ask:
            measured = await ask("evaluate", "domains", texts, "--json")
            compared = await ask("compare", "domains", "large", texts, "--json")
            explained = await ask("explain", "domains", "bank please", "--json")
        assert (measured.exit_code, compared.exit_code, explained.exit_code) == (0, 0, 0), said(measured)
        figures = json.loads(measured.stdout)
        assert figures["model"]["id"] == "domains"
        assert figures["accuracy"]["in_scope"] == pytest.approx(2 / 3)
        assert json.loads(compared.stdout)["agreement"] == 1.0
        (part,) = json.loads(explained.stdout)["explained"]
        assert (part["label"], part["logit"]) == ("yes", 2.0)

    def test_without_a_frontend_its_absence_is_told(self, models: Path) -> None:
        result = run("predict", "domains", "x", "--path", "--frontend", refusing_address())
        assert result.exit_code == EXIT_UNAVAILABLE
        assert "nothing listens on port" in said(result)
