from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from frontend.releases.trials import TrialCounts
from serving.call.identity import Identity, Right
from serving.domain.errors import InvalidModelFile, ModelNotFound, Unavailable
from serving.domain.model_id import ModelId
from serving.domain.prediction import Fallback, ScoredLabel
from serving.stubs import model_service_pb2 as pb
from serving.volume.model_store import ModelStore
from tests.builders import a_prediction, publish
from tests.frontend.management.model_service import Running, model_service, versions

BOT = ModelId("bot")


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """Return the error of a refused call."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_a_version_goes_live_once_it_is_loaded_and_has_answered_its_example(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", Example={"document": "how are you", "label": "how are you"})
    async with model_service(tmp_path) as running:
        state = await running.stub.Release(
            pb.ReleaseRequest(name="bot", version="1", expected_revision=0, comment="first")
        )
        assert (state.revision, state.stable, state.history[0].comment) == (1, "1", "first")
        assert running.backend.loaded == ["bot@1"]
        ((query,),) = running.backend.batches
        assert (query.model_id, query.document) == ("bot@1", "how are you")
        known = await running.known.of(BOT)
    assert known is not None
    assert known.stable == "1"


async def test_a_release_is_in_force_at_once_where_it_was_made(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        assert (await running.known.of(BOT)).stable == "1"  # type: ignore[union-attr]
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="2"))
        # The release file would only be checked in an hour.
        assert (await running.known.of(BOT)).stable == "2"  # type: ignore[union-attr]


async def test_a_version_that_cannot_be_loaded_does_not_go_live(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        running.backend.failure = InvalidModelFile("model.pth is damaged; publish the model again")
        error = await refused(running.stub.Release(pb.ReleaseRequest(name="bot", version="2")))
        assert error.code() is StatusCode.FAILED_PRECONDITION
        assert "model.pth is damaged" in (error.details() or "")
        assert (await running.stub.GetRelease(pb.GetReleaseRequest(name="bot"))).stable == "1"


async def test_a_version_that_answers_its_example_wrongly_does_not_go_live(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", Example={"document": "how are you", "label": "greeting"})
    async with model_service(tmp_path) as running:
        error = await refused(running.stub.Release(pb.ReleaseRequest(name="bot", version="1")))
        assert error.code() is StatusCode.FAILED_PRECONDITION
        assert "'greeting'" in (error.details() or "")
        assert (await running.stub.GetRelease(pb.GetReleaseRequest(name="bot"))).revision == 0


async def test_the_best_label_counts_though_the_answer_fell_back(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", Example={"document": "how are you", "label": "greeting"})
    async with model_service(tmp_path) as running:
        running.backend.answer = lambda query: a_prediction(query, "oos")._replace(
            fallback=Fallback(ScoredLabel("greeting", 0.3), 0.5)
        )
        assert (await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))).stable == "1"


async def test_a_version_without_an_example_has_to_answer_anything(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        assert running.backend.batches


async def test_an_engine_that_is_down_is_no_fault_of_the_version(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1")
    async with model_service(tmp_path) as running:
        running.backend.failure = Unavailable("the predictor cannot be reached at the moment; try again")
        error = await refused(running.stub.Release(pb.ReleaseRequest(name="bot", version="1")))
    assert error.code() is StatusCode.UNAVAILABLE


async def test_two_operators_cannot_overwrite_each_other(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2", "3")
    async with model_service(tmp_path) as running:
        first = await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        both = await asyncio.gather(
            *(
                running.stub.Release(pb.ReleaseRequest(name="bot", version=version, expected_revision=first.revision))
                for version in ("2", "3")
            ),
            return_exceptions=True,
        )
        lost = [each for each in both if isinstance(each, grpc.aio.AioRpcError)]
        assert [error.code() for error in lost] == [StatusCode.ABORTED]
        assert (await running.stub.GetRelease(pb.GetReleaseRequest(name="bot"))).revision == 2


async def test_a_caller_that_leaves_leaves_no_release_half_made(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        for _ in range(20):
            call = running.stub.Release(pb.ReleaseRequest(name="bot", version="2"))
            await asyncio.sleep(0.001)
            call.cancel()
        known = await running.known.of(BOT)
        assert known is not None
        while known.revision != ModelStore(tmp_path).read_release(BOT).revision:
            # A written release is learned even if its caller has left; nothing else would report it within an hour.
            await asyncio.sleep(0.01)
            known = await running.known.of(BOT)
            assert known is not None


async def test_the_way_of_a_version_from_canary_to_stable_and_back(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        stub = running.stub
        await stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        bounds = pb.CanaryBounds(max_disagreement=0.5)
        state = await stub.Release(
            pb.ReleaseRequest(name="bot", version="2", role=pb.CANARY, share=0.25, bounds=bounds)
        )
        assert (state.canary.version, state.canary.share) == ("2", 0.25)
        assert (state.canary.bounds.max_disagreement, state.canary.bounds.max_error_rate) == (0.5, 0.02)
        assert (await stub.Promote(pb.PromoteRequest(name="bot"))).stable == "2"
        assert (await stub.Rollback(pb.RollbackRequest(name="bot"))).stable == "1"
        assert (await refused(stub.Rollback(pb.RollbackRequest(name="bot")))).code() is StatusCode.FAILED_PRECONDITION
        assert (await stub.Rollback(pb.RollbackRequest(name="bot", version="2"))).stable == "2"
        history = (await stub.GetRelease(pb.GetReleaseRequest(name="bot", history=3))).history
    assert [change.action for change in history] == ["rollback", "rollback", "promote"]


async def test_shadows_and_labels_come_and_go(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        stub = running.stub
        await stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        await stub.Release(pb.ReleaseRequest(name="bot", version="2", role=pb.SHADOW, share=0.5))
        state = await stub.Release(pb.ReleaseRequest(name="bot", version="2", role=pb.LABEL, label="beta"))
        assert (state.shadow.version, state.shadow.share, dict(state.labels)) == ("2", 0.5, {"beta": "2"})
        taken = pb.ReleaseRequest(name="bot", version="2", role=pb.LABEL, label="1")
        assert "choose another label" in ((await refused(stub.Release(taken))).details() or "")
        await stub.Withdraw(pb.WithdrawRequest(name="bot", role=pb.SHADOW))
        state = await stub.Withdraw(pb.WithdrawRequest(name="bot", role=pb.LABEL, label="beta"))
    assert not state.HasField("shadow")
    assert not state.labels


@pytest.mark.parametrize(
    "request_",
    [
        {"name": "bot", "version": "9"},
        {"name": "nobody", "version": "1"},
    ],
)
async def test_what_is_not_there_cannot_go_live(tmp_path: Path, request_: dict[str, Any]) -> None:
    versions(tmp_path, "bot", "1")
    async with model_service(tmp_path) as running:
        assert (await refused(running.stub.Release(pb.ReleaseRequest(**request_)))).code() is StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        {"name": "bot@1", "version": "1"},
        {"name": "bot", "version": "../1"},
        {"name": "bot", "version": "1", "share": 0.5},
        {"name": "bot", "version": "1", "bounds": pb.CanaryBounds(min_answers=3)},
        {"name": "bot", "version": "1", "label": "beta"},
        {"name": "bot", "version": "1", "role": pb.LABEL},
        {"name": "bot", "version": "1", "role": 9},
        {"name": "bot", "version": "2", "role": pb.CANARY, "share": float("nan")},
        {"name": "bot", "version": "2", "role": pb.CANARY, "bounds": pb.CanaryBounds(min_answers=0)},
        {"name": "bot", "version": "2", "comment": "x" * 1025},
    ],
)
async def test_a_release_that_is_not_well_asked_for_is_refused(tmp_path: Path, request_: dict[str, Any]) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        error = await refused(running.stub.Release(pb.ReleaseRequest(**request_)))
    assert error.code() is StatusCode.INVALID_ARGUMENT


async def test_a_description_tells_all_that_is_known(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2", ModelVersion="7", Owner="helpdesk")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="2", role=pb.CANARY))
        running.trials.keep(BOT, [TrialCounts("stable", "1", 9), TrialCounts("canary", "2", 5, 1, 4, 3, 2)])
        described = await running.stub.DescribeModel(pb.DescribeModelRequest(runId="bot"))
    assert described.summary.stable == "1"
    assert json.loads(described.manifest)["Owner"] == "helpdesk"
    assert [(version.version, list(version.roles)) for version in described.versions] == [
        ("1", ["stable"]),
        ("2", ["canary"]),
    ]
    assert [held.resident for held in described.residences] == [True]
    canary = described.release.trials[1]
    assert (canary.role, canary.answers, canary.errors) == (pb.CANARY, 5, 1)
    assert (canary.compared, canary.agreed, canary.skipped) == (4, 3, 2)


@pytest.mark.parametrize(("run_id", "answered"), [("bot", "1"), ("bot@2", "2"), ("bot@beta", "2"), ("bot@stable", "1")])
async def test_models_are_named_as_callers_of_predictions_name_them(tmp_path: Path, run_id: str, answered: str) -> None:
    for version in ("1", "2"):
        versions(tmp_path, "bot", version, ModelVersion=version)
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="2", role=pb.LABEL, label="beta"))
        described = await running.stub.DescribeModel(pb.DescribeModelRequest(runId=run_id))
        assert json.loads(described.manifest)["ModelVersion"] == answered
        running.backend.loaded.clear()
        assert (await running.stub.LoadModel(pb.LoadModelRequest(runId=run_id))).residence.resident
        await running.stub.UnloadModel(pb.UnloadModelRequest(runId=run_id))
    assert running.backend.loaded == running.backend.unloaded == [f"bot@{answered}"]


async def test_a_model_in_a_folder_of_its_own_is_described_loaded_and_unloaded_too(tmp_path: Path) -> None:
    publish(tmp_path, "flat")
    async with model_service(tmp_path) as running:
        described = await running.stub.DescribeModel(pb.DescribeModelRequest(runId="flat"))
        assert not described.versions
        assert not described.HasField("release")
        await running.stub.LoadModel(pb.LoadModelRequest(runId="flat"))
        assert running.backend.loaded == ["flat"]


@pytest.mark.parametrize("run_id", ["nobody", "bot@9", "bot@beta"])
async def test_what_is_not_there_is_not_described(tmp_path: Path, run_id: str) -> None:
    versions(tmp_path, "bot", "1")
    async with model_service(tmp_path) as running:
        error = await refused(running.stub.DescribeModel(pb.DescribeModelRequest(runId=run_id)))
    assert error.code() is StatusCode.NOT_FOUND


async def test_protected_models_are_deleted_by_force_alone(tmp_path: Path) -> None:
    publish(tmp_path, "flat")
    versions(tmp_path, "bot", "1", "2", "3", "4")
    async with model_service(tmp_path) as running:
        stub = running.stub
        for version in ("1", "2"):
            await stub.Release(pb.ReleaseRequest(name="bot", version=version))
        for run_id in ("flat", "bot", "bot@1", "bot@2"):
            error = await refused(stub.DeleteModel(pb.DeleteModelRequest(runId=run_id)))
            assert error.code() is StatusCode.FAILED_PRECONDITION, run_id
        running.backend.loaded.append(ModelId("bot@3"))
        running.backend.pinned.add(ModelId("bot@3"))
        assert "pinned" in ((await refused(stub.DeleteModel(pb.DeleteModelRequest(runId="bot@3")))).details() or "")
        await stub.DeleteModel(pb.DeleteModelRequest(runId="bot@4"))
        for run_id in ("bot@3", "flat", "bot@1"):
            await stub.DeleteModel(pb.DeleteModelRequest(runId=run_id, force=True))
        assert sorted(path.name for path in (tmp_path / "bot").iterdir() if path.is_dir()) == ["2"]
        await stub.DeleteModel(pb.DeleteModelRequest(runId="bot", force=True))
    assert list(tmp_path.iterdir()) == []


RIGHTS: Mapping[str, Any] = {
    "ListModels": pb.ListModelsRequest(),
    "DescribeModel": pb.DescribeModelRequest(runId="bot"),
    "GetRelease": pb.GetReleaseRequest(name="bot"),
    "LoadModel": pb.LoadModelRequest(runId="bot"),
    "UnloadModel": pb.UnloadModelRequest(runId="bot"),
    "DeleteModel": pb.DeleteModelRequest(runId="bot"),
    "Release": pb.ReleaseRequest(name="bot", version="1"),
    "Promote": pb.PromoteRequest(name="bot"),
    "Rollback": pb.RollbackRequest(name="bot"),
    "Withdraw": pb.WithdrawRequest(name="bot", role=pb.CANARY),
}
SEEN_BY_ALL = frozenset({"ListModels", "DescribeModel", "GetRelease"})


async def code_of(running: Running, method: str) -> StatusCode:
    try:
        await getattr(running.stub, method)(RIGHTS[method])
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


@pytest.mark.parametrize("method", RIGHTS)
async def test_each_method_asks_for_its_right_on_the_model(tmp_path: Path, method: str) -> None:
    versions(tmp_path, "bot", "1")
    readers = Identity("reader", frozenset({Right.PREDICT}), ("bot",))
    async with model_service(tmp_path, readers) as running:
        assert (await code_of(running, method)) is (
            StatusCode.OK if method in SEEN_BY_ALL else StatusCode.PERMISSION_DENIED
        )
    others = Identity("other", frozenset({Right.PREDICT, Right.MANAGE}), ("travel",))
    async with model_service(tmp_path, others) as running:
        assert (await code_of(running, method)) is (
            StatusCode.OK if method == "ListModels" else StatusCode.PERMISSION_DENIED
        )


async def test_who_made_a_change_stands_in_the_history(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1")
    async with model_service(tmp_path, Identity("ada", frozenset(Right), ("*",))) as running:
        state = await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        assert running.backend.calls[0].identity.name == "ada"
        assert running.backend.batches[0][0].caller == "ada"
    assert state.history[0].by == "ada"


async def test_an_engine_that_is_down_does_not_hide_a_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "flat")
    async with model_service(tmp_path) as running:

        async def down(*_: object) -> Any:
            raise Unavailable("the predictor cannot be reached at the moment; try again")

        monkeypatch.setattr(running.backend, "residency", down)
        described = await running.stub.DescribeModel(pb.DescribeModelRequest(runId="flat"))
        assert described.summary.name == "flat"
        assert not described.residences
        monkeypatch.setattr(running.backend, "residency", _not_there)
        await running.stub.DeleteModel(pb.DeleteModelRequest(runId="flat", force=True))


async def _not_there(*_: object) -> Any:
    raise ModelNotFound("no model has this runId")
