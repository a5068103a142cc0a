from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from frontend.quotas.local import LocalLedger
from frontend.quotas.quotas import Quotas
from serving.call.call import Call, CallNotes
from serving.call.deadline import Deadline
from serving.call.identity import Identity, Right
from serving.call.limits import Limits
from serving.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelUnusable,
    PermissionDenied,
    QuotaExceeded,
    ServingError,
    Unavailable,
)
from serving.domain.explanation import Explanation
from serving.domain.pipelines.languages import UNCERTAIN
from serving.domain.prediction import Fallback, ModelVersion, Onward, Outcome, Prediction, Query, ScoredLabel
from tests.builders import PATIENCE, a_call, a_turn, publish
from tests.frontend.pipelines.plane import AtOnce, plane
from tests.serving.refusals import refused

MODELS = ("router", "bank", "travel", "large")
DOMAINS = {
    "Start": "domain",
    "Steps": {"domain": {"ask": "router", "route": {"bank": "bank", "travel": "travel"}, "otherwise": "large"}},
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in MODELS:
        publish(tmp_path, name, ModelVersion=f"{name}-1", classes={"0": "bank", "1": "travel"})
    return tmp_path


def pipeline(root: Path, model_id: str, definition: Mapping[str, Any], **keys: Any) -> None:
    publish(root, model_id, files={}, Algorithm="pipeline", classes={}, ModelVersion="7", **definition, **keys)


def answers(**by_model: Outcome | None) -> Callable[[Query], Outcome | None]:
    """Return a function that answers each query as the model's outcome says, with the id of the model."""

    def answer(query: Query) -> Outcome | None:
        outcome = by_model[query.model_id]
        return outcome._replace(model_id=query.model_id) if isinstance(outcome, Prediction) else outcome

    return answer


def said(label: str, score: float = 0.75) -> Prediction:
    return Prediction(label, score, (ScoredLabel(label, score),), "", "1")


def fallen(best: str, score: float = 0.3, threshold: float = 0.5) -> Prediction:
    return Prediction("oos", 0.0, (), "", "1", Fallback(ScoredLabel(best, score), threshold))


async def test_a_document_goes_where_its_label_leads_and_the_answer_tells_the_way(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(answers(router=said("bank", 0.9), bank=said("balance", 0.8)))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("p", "hello"), a_call())
    assert (answer.label, answer.score) == ("balance", 0.8)
    assert (answer.model_id, answer.model_version) == ("p", "7")
    first, last = answer.path
    assert (first.name, first.label, first.score, first.onward, first.next) == (
        "domain", "bank", 0.9, Onward.ROUTED, "bank",
    )  # fmt: skip
    assert (last.name, last.onward, last.next) == ("bank", Onward.ANSWERED, "")
    assert [model.model_id for model in (*first.models, *last.models)] == ["router", "bank"]
    assert first.seconds >= 0.0


async def test_the_options_of_a_query_are_for_the_step_that_answers(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(answers(router=said("bank"), bank=said("balance")))
    query = Query("p", "hello", k=3, threshold=0.9, explain=("a",), key="conversation")
    async with plane(models, engine) as predictions:
        await predictions.predict(query, a_call())
    assert engine.asked == [Query("router", "hello", key="conversation"), query._replace(model_id="bank")]


async def test_a_threshold_of_the_caller_judges_the_answer_of_a_step_that_could_have_gone_on(models: Path) -> None:
    pipeline(models, "p", {"Start": "small", "Steps": {"small": {"ask": "bank", "otherwise": "large"}}})
    publish(models, "bank", Confidence={"fallback": "none"})
    engine = AtOnce(answers(bank=said("balance", 0.7), large=said("other")))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("p", "hello", threshold=0.8), a_call())
    assert engine.asked == [Query("bank", "hello")]
    assert (answer.label, answer.fallback) == ("none", Fallback(ScoredLabel("balance", 0.7), 0.8))


async def test_what_arises_in_a_batch_is_asked_in_the_same_turn(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(lambda query: said("bank" if query.document == "b" else "travel")._replace(model_id=query.model_id))
    async with plane(models, engine) as predictions:
        outcomes = await predictions.predict_batch([Query("p", "b"), Query("p", "t"), Query("large", "x")], a_call())
    assert [outcome.model_id for outcome in outcomes if isinstance(outcome, Prediction)] == ["p", "p", "large"]


async def test_a_document_that_no_caller_waits_for_is_asked_no_further(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(answers(router=None))
    async with plane(models, engine) as predictions:
        asking = asyncio.create_task(predictions.predict(Query("p", "hello"), a_call()))
        while not engine.asked:
            await a_turn()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert engine.withdrawn == [Query("router", "hello")]


async def test_a_step_that_is_late_goes_otherwise_and_its_question_is_withdrawn(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "bank", "within": 0.02, "otherwise": "large"}}})
    engine = AtOnce(answers(bank=None, large=said("other")))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("p", "hello"), a_call())
    assert [step.onward for step in answer.path] == [Onward.LATE, Onward.ANSWERED]
    assert answer.path[0].models == (ModelVersion("bank", ""),)
    assert [query.model_id for query in engine.withdrawn] == ["bank"]
    # The engine was told to be done by then, the last step has all the time that is left.
    assert engine.calls[0].deadline.at < engine.calls[1].deadline.at


async def test_a_step_that_is_late_without_otherwise_ends_the_pipeline(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "bank", "within": 0.02}}})
    async with plane(models, AtOnce(answers(bank=None))) as predictions:
        with refused(DeadlineExceeded) as caught:
            await predictions.predict(Query("p", "hello"), a_call())
    # The caller has time left: the pipeline's owner has to allow more of it.
    assert str(caught.value).startswith('step "a" of p did not answer within 0.02 s')
    assert '"within"' in str(caught.value)


async def test_a_pipeline_that_was_late_is_passed_by_and_its_step_is_the_late_one(models: Path) -> None:
    pipeline(models, "inner", {"Start": "a", "Steps": {"a": {"ask": "bank", "within": 0.02}}})
    pipeline(models, "mild", {"Start": "b", "Steps": {"b": {"ask": "inner", "within": 30, "otherwise": "large"}}})
    pipeline(models, "strict", {"Start": "b", "Steps": {"b": {"ask": "inner", "within": 30}}})
    async with plane(models, AtOnce(answers(bank=None, large=said("other")))) as predictions:
        answer = await predictions.predict(Query("mild", "hello"), a_call())
        with refused(DeadlineExceeded) as caught:
            await predictions.predict(Query("strict", "hello"), a_call())
    (step, _) = answer.path
    assert (step.onward, step.code, step.models) == (
        Onward.FAILED,
        StatusCode.DEADLINE_EXCEEDED,
        (ModelVersion("inner", ""),),
    )
    assert str(caught.value).startswith('step "b" of strict: step "a" of inner did not answer within 0.02 s')


async def test_models_without_a_majority_are_told_with_their_votes(models: Path) -> None:
    step = {"ask": ["bank", "travel", "large"], "vote": "majority"}
    pipeline(models, "p", {"Start": "a", "Steps": {"a": step}})
    engine = AtOnce(answers(bank=said("x", 0.9), travel=said("y", 0.8), large=fallen("x", 0.4)))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("p", "hello", k=5), a_call())
    share = 1 / 3
    assert answer.fallback == Fallback(ScoredLabel("x", share), 0.5)
    assert answer.best == (ScoredLabel("x", share), ScoredLabel("y", share))
    (taken,) = answer.path
    assert [model.model_id for model in taken.models] == ["bank", "travel", "large"]
    assert taken.votes == (ScoredLabel("x", 0.9), ScoredLabel("y", 0.8), ScoredLabel("oos", 0.0))
    assert taken.fallback == answer.fallback


async def test_a_mean_that_falls_back_is_below_the_threshold_that_it_tells(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": ["bank", "travel", "large"], "vote": "mean"}}})
    certain, unsure = said("x", 0.99), [fallen("x", 0.5, 0.75), fallen("x", 0.25, 0.5)]
    async with plane(models, AtOnce(answers(bank=certain, travel=unsure[0], large=unsure[1]))) as predictions:
        answer = await predictions.predict(Query("p", "hello"), a_call())
    assert answer.fallback == Fallback(ScoredLabel("x", 0.375), 0.625)


async def test_a_threshold_of_the_caller_judges_a_mean_as_a_whole(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": ["bank", "travel"], "vote": "mean"}}})
    engine = AtOnce(answers(bank=said("x", 0.75), travel=said("x", 0.5)))
    async with plane(models, engine) as predictions:
        above = await predictions.predict(Query("p", "hello", threshold=0.62), a_call())
        below = await predictions.predict(Query("p", "hello", threshold=0.63), a_call())
    assert (above.label, above.fallback) == ("x", None)
    assert below.fallback == Fallback(ScoredLabel("x", 0.625), 0.63)
    assert {query.threshold for query in engine.asked} == {0.0}


async def test_an_explanation_of_a_vote_names_its_model(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": ["bank", "travel"], "vote": "mean"}}})
    explained = Explanation(("hello",), (), (), 1.0)
    one, other = (said(label, score)._replace(explanation=explained) for label, score in (("x", 0.4), ("y", 0.9)))
    engine = AtOnce(answers(bank=one._replace(model_id="bank"), travel=other._replace(model_id="travel")))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("p", "hello", explain=()), a_call())
    assert answer.explanation == explained._replace(model_id="travel")


async def test_the_time_of_steps_without_an_answer_is_noted_for_the_callers_call(models: Path) -> None:
    steps = {"a": {"ask": "bank", "within": 0.02, "otherwise": "b"}, "b": {"ask": "travel", "otherwise": "large"}}
    pipeline(models, "p", {"Start": "a", "Steps": steps})
    pipeline(models, "outer", {"Start": "a", "Steps": {"a": {"ask": "p"}}})
    engine = AtOnce(answers(bank=None, travel=Unavailable("down"), large=said("other")))
    async with plane(models, engine) as predictions:
        for model_id in ("p", "outer"):
            call = Call("r", Deadline.after(PATIENCE), notes=CallNotes())
            answer = await predictions.predict(Query(model_id, "hello"), call)
            path = answer.path[0].path if model_id == "outer" else answer.path
            assert call.notes.unanswered_seconds == path[0].seconds + path[1].seconds >= 0.02
        call = Call("r", Deadline.after(PATIENCE), notes=CallNotes())
        await predictions.predict(Query("large", "hello"), call)
        assert call.notes.unanswered_seconds == 0.0


async def test_a_deadline_that_passes_is_the_callers_and_goes_nowhere(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "bank", "within": 60, "otherwise": "large"}}})
    engine = AtOnce(answers(bank=DeadlineExceeded("late"), large=said("other")))
    async with plane(models, engine) as predictions:
        with refused(DeadlineExceeded):
            await predictions.predict(Query("p", "hello"), Call("r", Deadline.after(PATIENCE)))
    assert [query.model_id for query in engine.asked] == ["bank"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(Unavailable("down"), Unavailable), (InvalidRequest("bad"), InvalidRequest)],
    ids=["unavailable", "invalid"],
)
async def test_an_error_names_the_step_and_keeps_its_status(
    error: ServingError, told: type[ServingError], models: Path
) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "bank"}}})
    async with plane(models, AtOnce(answers(bank=error))) as predictions:
        with refused(told) as caught:
            await predictions.predict(Query("p", "hello"), a_call())
    assert str(caught.value) == f'step "a" of p: {error}'


async def test_a_model_that_is_gone_is_named_with_its_step_or_passed_by(models: Path) -> None:
    pipeline(models, "strict", {"Start": "a", "Steps": {"a": {"ask": "deleted"}}})
    pipeline(models, "mild", {"Start": "a", "Steps": {"a": {"ask": "deleted", "otherwise": "large"}}})
    async with plane(models, AtOnce(answers(large=said("other")))) as predictions:
        with refused(ModelUnusable) as caught:
            await predictions.predict(Query("strict", "hello"), a_call())
        answer = await predictions.predict(Query("mild", "hello"), a_call())
    assert 'step "a"' in str(caught.value)
    assert [step.onward for step in answer.path] == [Onward.FAILED, Onward.ANSWERED]


async def test_a_label_without_a_route_is_named_with_its_step(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "router", "route": {"bank": "bank"}}}})
    async with plane(models, AtOnce(answers(router=said("food")))) as predictions:
        with refused(ModelUnusable) as caught:
            await predictions.predict(Query("p", "hello"), a_call())
    assert 'step "a" of p has no route for the label "food"' in str(caught.value)


async def test_a_pipeline_in_a_pipeline_tells_its_own_way(models: Path) -> None:
    pipeline(models, "inner", DOMAINS)
    pipeline(models, "outer", {"Start": "a", "Steps": {"a": {"ask": "inner", "otherwise": "large"}}})
    engine = AtOnce(answers(router=said("bank"), bank=said("balance")))
    async with plane(models, engine) as predictions:
        answer = await predictions.predict(Query("outer", "hello"), a_call())
    assert answer.label == "balance"
    assert [step.name for step in answer.path] == ["a"]
    assert [step.name for step in answer.path[0].path] == ["domain", "bank"]


async def test_pipelines_that_lead_in_a_circle_are_refused_with_their_names(models: Path) -> None:
    pipeline(models, "one", {"Start": "a", "Steps": {"a": {"ask": "two"}}})
    pipeline(models, "two", {"Start": "a", "Steps": {"a": {"ask": "one"}}})
    async with plane(models, AtOnce(answers())) as predictions:
        with refused(ModelUnusable) as caught:
            await predictions.predict(Query("one", "hello"), a_call())
    assert "one -> two -> one" in str(caught.value)


async def test_a_language_is_detected_and_told(models: Path) -> None:
    pipeline(
        models,
        "p",
        {"Start": "l", "Steps": {"l": {"detect": "language", "route": {"de": "bank"}, "otherwise": "large"}}},
    )
    engine = AtOnce(answers(bank=said("konto"), large=said("other")))
    async with plane(models, engine) as predictions:
        german, english, nothing = await predictions.predict_batch(
            [
                Query("p", "Wo ist denn mein Geld geblieben?"),
                Query("p", "Where has all my money gone?"),
                Query("p", "??"),
            ],
            a_call(),
        )
    for outcome, label, onward in (
        (german, "de", Onward.ROUTED),
        (english, "en", Onward.NO_ROUTE),
        (nothing, UNCERTAIN, Onward.FELL_BACK),
    ):
        assert isinstance(outcome, Prediction)
        assert (outcome.path[0].label, outcome.path[0].onward, outcome.path[0].models) == (label, onward, ())


def identity(*names: str, rights: frozenset[Right] = frozenset({Right.PREDICT})) -> Identity:
    return Identity("team", rights, names)


async def test_the_caller_needs_a_right_for_each_model_that_is_asked(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(answers(router=said("bank"), bank=said("balance")))
    async with plane(models, engine) as predictions:
        call = Call("r", Deadline.after(PATIENCE), identity("p", "router"))
        with refused(PermissionDenied) as caught:
            await predictions.predict(Query("p", "hello"), call)
        assert 'step "bank"' in str(caught.value)
        call = Call("r", Deadline.after(PATIENCE), identity("p", "router", "bank"))
        assert (await predictions.predict(Query("p", "hello"), call)).label == "balance"
    assert {query.caller for query in engine.asked} == {"team"}


async def test_a_right_for_the_pipeline_is_enough_where_its_manifest_says_so(models: Path) -> None:
    pipeline(models, "p", DOMAINS, Rights="pipeline")
    engine = AtOnce(answers(router=said("bank"), bank=said("balance")))
    async with plane(models, engine) as predictions:
        call = Call("r", Deadline.after(PATIENCE), identity("p"))
        assert (await predictions.predict(Query("p", "hello"), call)).label == "balance"
        for model in ("bank", "router"):
            with refused(PermissionDenied):
                await predictions.predict(Query(model, "hello"), call)
    # Predictors check the frontend's own rights then.
    assert {query.caller for query in engine.asked} == {""}


async def test_what_is_asked_to_compare_versions_counts_in_no_quota_and_steps_are_not_refused(models: Path) -> None:
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "bank"}}})
    quotas = Quotas(Limits(requests_per_second=0.001, burst=1), LocalLedger())
    async with plane(models, AtOnce(answers(bank=said("x"))), quotas=quotas) as predictions:
        call = Call("r", Deadline.after(PATIENCE), identity("p", "bank"))
        for _ in range(5):
            assert (await predictions.predict(Query("p", "hello"), call.apart(call.deadline))).label == "x"
        assert (await predictions.predict(Query("p", "hello"), call)).label == "x"
        with refused(QuotaExceeded) as caught:
            await predictions.predict(Query("p", "hello"), call)
    # One document for the pipeline and one for its model, of which the second is still owed.
    assert caught.value.retry_after == pytest.approx(2000, rel=0.01)


async def test_a_document_is_not_sent_to_models_without_end(models: Path) -> None:
    leaves = ["bank", "travel", "large", "router"]
    pipeline(models, "layer0", {"Start": "v", "Steps": {"v": {"ask": leaves, "vote": "mean"}}})
    for layer in range(1, 4):
        for copy in "abcd":
            asked = ["layer0"] if layer == 1 else [f"layer{layer - 1}{each}" for each in "abcd"]
            step: dict[str, Any] = {"ask": asked} if layer == 1 else {"ask": asked, "vote": "mean"}
            pipeline(models, f"layer{layer}{copy}", {"Start": "v", "Steps": {"v": step}})
    engine = AtOnce(answers(**{name: said("x") for name in leaves}))
    async with plane(models, engine) as predictions:
        with refused(ModelUnusable) as caught:
            await predictions.predict(Query("layer3a", "hello"), a_call())
    assert "was sent to 64 models already" in str(caught.value)
    assert len(engine.asked) <= 64


async def test_only_pipelines_that_the_operator_trusts_give_rights(models: Path) -> None:
    pipeline(models, "trusted-p", DOMAINS, Rights="pipeline")
    pipeline(models, "other-p", DOMAINS, Rights="pipeline")
    manager = identity("trusted-p", "other-p", *MODELS, rights=frozenset({Right.MANAGE}))
    engine = AtOnce(answers(router=said("bank"), bank=said("balance")))
    async with plane(models, engine, trusted=["trusted-*"]) as predictions:
        call = Call("r", Deadline.after(PATIENCE), identity("trusted-p", "other-p"))
        assert (await predictions.predict(Query("trusted-p", "hello"), call)).label == "balance"
        with refused(PermissionDenied):
            await predictions.predict(Query("other-p", "hello"), call)
        await predictions.load("trusted-p", Call("r", Deadline.after(PATIENCE), manager))
        with refused(PermissionDenied) as caught:
            await predictions.load("other-p", Call("r", Deadline.after(PATIENCE), manager))
    assert "trusted-pipelines" in str(caught.value)


async def test_an_explanation_needs_its_right_whatever_the_pipeline_says(models: Path) -> None:
    pipeline(models, "p", DOMAINS, Rights="pipeline")
    async with plane(models, AtOnce(answers(router=said("bank"), bank=said("balance")))) as predictions:
        call = Call("r", Deadline.after(PATIENCE), identity("p"))
        with refused(PermissionDenied):
            await predictions.predict(Query("p", "hello", explain=()), call)


async def test_loading_a_pipeline_loads_every_model_that_it_may_ask(models: Path) -> None:
    pipeline(models, "p", DOMAINS)
    engine = AtOnce(answers())
    async with plane(models, engine) as predictions:
        await predictions.load("p", a_call())
    assert sorted(engine.loaded) == ["bank", "large", "router", "travel"]


async def test_a_load_tells_nothing_about_models_that_the_caller_may_not_use(models: Path) -> None:
    step = {"ask": "router", "route": {"no-label": "bank", "bank": "gone"}}
    pipeline(models, "p", {"Start": "a", "Steps": {"a": step}})
    engine = AtOnce(answers())
    async with plane(models, engine) as predictions:
        stranger = identity("p", "bank", rights=frozenset({Right.MANAGE}))
        await predictions.load("p", Call("r", Deadline.after(PATIENCE), stranger))
        owner = identity("p", "bank", "router", "gone", rights=frozenset({Right.MANAGE}))
        with refused(ModelUnusable) as caught:
            await predictions.load("p", Call("r", Deadline.after(PATIENCE), owner))
    assert engine.loaded == ["bank"]
    assert "no-label" in str(caught.value)


async def test_thousands_of_faults_make_a_message_of_some_kilobytes(models: Path) -> None:
    routes = {f"no-label-{number}": "bank" for number in range(5000)}
    pipeline(models, "p", {"Start": "a", "Steps": {"a": {"ask": "router", "route": routes, "otherwise": "large"}}})
    async with plane(models, AtOnce(answers())) as predictions:
        with pytest.raises(ModelUnusable) as caught:
            await predictions.load("p", a_call())
    assert len(str(caught.value)) < 5000
    assert re.search(r"; and \d+ more$", str(caught.value))


async def test_the_fallback_label_is_that_of_the_model_behind_all_pipelines_and_in_the_path(models: Path) -> None:
    publish(models, "own", classes={"0": "x"}, Confidence={"threshold": 0.1, "fallback": "none"})
    pipeline(models, "inner", {"Start": "b", "Steps": {"b": {"ask": "own"}}})
    for model_id, asked in (("p", "own"), ("q", "inner")):
        pipeline(models, model_id, {"Start": "a", "Steps": {"a": {"ask": asked, "otherwise": "large"}}})
    async with plane(models, AtOnce(answers(own=said("x", 0.75)))) as predictions:
        for model_id in ("p", "q"):
            answer = await predictions.predict(Query(model_id, "hello", threshold=0.9), a_call())
            assert (answer.label, answer.fallback) == ("none", Fallback(ScoredLabel("x", 0.75), 0.9))
            assert (answer.path[-1].label, answer.path[-1].fallback) == (answer.label, answer.fallback)


async def test_a_pipeline_that_does_not_fit_its_models_is_not_loaded_and_every_fault_is_named(models: Path) -> None:
    steps = {"first": {"ask": "router", "route": {"bank": "second", "sea": "gone"}}, "second": {"ask": "bank@9"}}
    pipeline(models, "p", {"Start": "first", "Steps": steps})
    engine = AtOnce(answers())
    async with plane(models, engine) as predictions:
        with refused(ModelUnusable) as caught:
            await predictions.load("p", a_call())
    for fault in (
        'step "first" has a route for "sea", but router has no label of this name',
        'step "first" has no route for "travel"',
        'step "second" asks bank@9',
        'step "gone" asks gone',
    ):
        assert fault in str(caught.value)
    assert engine.loaded == []
