from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.domain.errors import ServingError, Status, error_of
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from tests.builders import a_call, publish
from tests.frontend.pipelines.interpreter import Ended, Said, interpreted
from tests.frontend.pipelines.plane import AtOnce, plane

LABELS = ("a", "b", "c")
MODELS = tuple(f"m{number}" for number in range(5))
DOCUMENTS = ("x", "y", "z")
STATUSES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL")


@st.composite
def answers(draw: st.DrawFn) -> Said:
    """Return what a model says."""
    kind = draw(st.sampled_from(["answer", "answer", "answer", "fallback", "error", "late"]))
    if kind == "error":
        return Said(error=draw(st.sampled_from(STATUSES)))
    if kind == "late":
        return Said(error="late")
    # Different powers of two: sums are exact, and no two labels are equal.
    scores = tuple(zip(draw(st.permutations(LABELS)), (0.5, 0.25, 0.125), strict=True))
    (best, score), *_ = scores
    return Said("oos", 0.0, scores, best) if kind == "fallback" else Said(best, score, scores)


@st.composite
def definitions(draw: st.DrawFn) -> Mapping[str, Any]:
    """Return a pipeline of at most three steps, each of which leads to later ones, or to models."""
    number = draw(st.integers(1, 3))
    steps: dict[str, Any] = {}
    for index in range(number):
        later = [f"s{other}" for other in range(index + 1, number)]
        # Each later step has to be reached: the first of them by `otherwise`.
        target = st.sampled_from([*later, *MODELS])
        step: dict[str, Any] = {}
        asked = draw(st.lists(st.sampled_from(MODELS), min_size=1, max_size=3, unique=True))
        step["ask"] = asked[0] if len(asked) == 1 else asked
        if len(asked) > 1:
            step["vote"] = draw(st.sampled_from(["mean", "majority"]))
        if draw(st.booleans()):
            step["route"] = draw(st.dictionaries(st.sampled_from([*LABELS, "oos"]), target, min_size=1))
        if later:
            step["otherwise"] = later[0]
        elif draw(st.booleans()):
            step["otherwise"] = draw(target)
        # Every question to a model that never answers has an end.
        step["within"] = 0.02
        steps[f"s{index}"] = step
    return {"Start": "s0", "Steps": steps}


def outcome_of(said: Said, query: Query) -> Outcome | None:
    if said.error == "late":
        return None
    if said.error:
        return error_of(Status(StatusCode[said.error], "as the test says"))
    fallback = Fallback(ScoredLabel(*said.scores[0]), 0.9) if said.fallen_from else None
    best = tuple(ScoredLabel(*scored) for scored in said.scores[: query.k])
    return Prediction(said.label, said.score, best, query.model_id, "1", fallback)


def ended(outcome: Outcome, path: tuple[tuple[str, str], ...]) -> Ended:
    if isinstance(outcome, ServingError):
        return Ended(outcome.code.name, 0.0, path)
    return Ended(outcome.label, outcome.score, tuple((step.name, str(step.onward)) for step in outcome.path))


@pytest.mark.timeout(120)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    definition=definitions(),
    said=st.fixed_dictionaries({(model, document): answers() for model in MODELS for document in DOCUMENTS}),
)
async def test_a_pipeline_answers_as_its_definition_says_one_by_one_and_in_a_batch(
    tmp_path: Path, definition: Mapping[str, Any], said: Mapping[tuple[str, str], Said]
) -> None:
    for model in MODELS:
        publish(tmp_path, model)
    publish(tmp_path, "p", files={}, Algorithm="pipeline", classes={}, **definition)
    wanted = {
        document: interpreted(definition, {model: said[model, document] for model in MODELS}) for document in DOCUMENTS
    }
    # A model that is asked directly, as the last step, has no time limit of its own.
    hangs = {document for document, end in wanted.items() if end.path[-1] in {(model, "late") for model in MODELS}}
    documents = [document for document in DOCUMENTS if document not in hangs]
    engine = AtOnce(lambda query: outcome_of(said[query.model_id, query.document], query))
    async with plane(tmp_path, engine) as predictions:
        queries = [Query("p", document) for document in documents]
        batch = await predictions.predict_batch(queries, a_call(5.0))
        for query, outcome in zip(queries, batch, strict=True):
            end = wanted[query.document]
            assert ended(outcome, end.path) == end
            assert outcome_alone(await _alone(predictions, query)) == outcome_alone(outcome)


async def _alone(predictions: Any, query: Query) -> Outcome:
    try:
        answer: Prediction = await predictions.predict(query, a_call(5.0))
    except ServingError as error:
        return error
    return answer


def outcome_alone(outcome: Outcome) -> object:
    """Return an outcome without the time that its steps took."""
    if isinstance(outcome, ServingError):
        return outcome.code, str(outcome)
    return outcome._replace(path=tuple(step._replace(seconds=0.0) for step in outcome.path))
