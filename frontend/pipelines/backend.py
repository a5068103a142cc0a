"""The engine of pipelines: each of its models is made of questions to other models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from cachetools import LRUCache

from frontend.engines.backend import ManifestsAtHand, Removed
from frontend.engines.submission import Done, Submit, Withdraw, answer_of
from frontend.pipelines.checks import Releases, check_models
from frontend.pipelines.counts import StepCounts
from frontend.pipelines.languages import LanguageDetector
from frontend.pipelines.onward import failure
from frontend.pipelines.prepared import PreparedPipeline
from frontend.pipelines.walk import PipelineModel, Surroundings
from grpc_http2.alarms import alarms_of
from serving.call.call import Call, enter_call
from serving.call.closing import close_in_order
from serving.call.identity import ANYBODY, Identity, Right
from serving.call.tasks import Tasks
from serving.domain.errors import ModelUnusable, PermissionDenied, ServingError
from serving.domain.model_id import ModelId
from serving.domain.name_patterns import NamePatterns
from serving.domain.pipelines.pipeline import Pipeline, Rights
from serving.domain.prediction import Onward, Outcome, Prediction, Query
from serving.domain.residency import ModelResidency

_MOST_PREPARED: Final = 1024
# Documents of a batch that begin their ways in one turn: as many as an engine's largest batch.
_AT_ONCE: Final = 256


class Predictions(Submit, Releases, Protocol):
    """The data plane, as callers use it."""

    async def load(self, model_id: str, call: Call) -> None:
        """Load the model, or all live versions of a name. Raises ServingError."""


class PipelineBackend:
    """A :class:`~frontend.engines.backend.Backend` for pipelines.

    Steps ask through the same data plane as callers, so that rights, quotas, releases and metrics count for each model.
    Questions that arise in one turn of the event loop are sent together, as those of callers are.

    Args:
        manifests: manifests of all models.
        counts: counts of steps.
        trusted: names of the pipelines that may give their callers the right to their models.
    """

    def __init__(self, manifests: ManifestsAtHand, counts: StepCounts, trusted: NamePatterns) -> None:
        self._manifests = manifests
        self._counts = counts
        self._trusted = trusted
        self._languages = LanguageDetector()
        self._tasks = Tasks()
        self._predictions: Predictions | None = None
        self._around: Surroundings | None = None
        self._prepared: LRUCache[ModelId, PreparedPipeline] = LRUCache(_MOST_PREPARED)

    def ask_through(self, predictions: Predictions) -> None:
        """Ask the models through ``predictions``, which in turn use this engine. Call this before the first query."""
        alarms = alarms_of(asyncio.get_running_loop())
        self._predictions = predictions
        self._around = Surroundings(predictions, self._languages, alarms, self._manifests, self._counts)

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Send the document on its way; ``done`` is called with the outcome."""
        model_id = ModelId(query.model_id)
        manifest = self._manifests.manifest_at_hand(model_id)
        prepared = self._prepared.get(model_id)
        if prepared is None or prepared.manifest is not manifest:
            return self._tasks.start(self._submit_later(query, call, done)).cancel
        return prepared.submit(query, call, done)

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the pipeline's answer to one query. Raises ServingError."""
        call.deadline.check()
        return await answer_of(self, query, call)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order."""
        walks: list[asyncio.Task[Outcome]] = []
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(queries), _AT_ONCE):
                walks += [group.create_task(self._outcome(query, call)) for query in queries[start : start + _AT_ONCE]]
                # Other callers have their turns in between.
                await asyncio.sleep(0)
        return [walk.result() for walk in walks]

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency:
        """Load the models that the pipeline may ask and the caller may manage; the pipeline itself takes no memory.

        Raises:
            PermissionDenied: the pipeline gives a right to its models, and the caller may not manage them, or the
                operator does not trust the pipeline.
            ModelUnusable: the pipeline does not fit its models; the message names every fault.
            ServingError: a model cannot be loaded.
        """
        if self._predictions is None:
            raise RuntimeError("ask_through was not called")
        prepared = await self._prepare(model_id)
        models = prepared.pipeline.models
        if prepared.pipeline.rights is Rights.PIPELINE and call.identity is not ANYBODY:
            # A version is loaded before it goes live.
            _check_may_give(models, call.identity)
            if not self._trusted.match(model_id):
                raise PermissionDenied(
                    'the pipeline has "Rights": "pipeline", and this frontend does not trust it: leave out Rights, or'
                    " ask the operator for an entry in the setting trusted-pipelines"
                )
        await check_models(model_id, prepared.pipeline, self._predictions, self._manifests, call.identity)
        inner = prepared.call_to_models(call, as_caller=True)
        predictions = self._predictions

        async def load(model: str) -> None:
            with _naming_the_step(model_id, prepared.pipeline, model):
                await predictions.load(model, inner)

        await asyncio.gather(*(load(model) for model in models if call.identity.may_use(model)))
        return ModelResidency("", resident=True)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return nothing: the models that a pipeline asks are resident, not the pipeline."""
        del model_id, call
        return ()

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Do nothing: other callers may use the models that the pipeline asks."""

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Do nothing: a pipeline is only in its manifest."""

    async def wait_until_ready(self) -> None:
        """Return at once."""

    async def close(self) -> None:
        """End the walks that wait for a definition."""
        await close_in_order(self._tasks.close, self._languages.close)

    async def _outcome(self, query: Query, call: Call) -> Outcome:
        try:
            return await answer_of(self, query, call)
        except ServingError as error:
            return error

    async def _submit_later(self, query: Query, call: Call, done: Done) -> None:
        enter_call(call)
        outcome: Prediction | Exception
        try:
            outcome = await answer_of(await self._prepare(ModelId(query.model_id)), query, call)
        except Exception as error:  # noqa: BLE001 - the outcome, whatever it is
            outcome = error
        done(outcome)

    async def _prepare(self, model_id: ModelId) -> PreparedPipeline:
        manifest = await self._manifests.manifest(model_id)
        pipeline = manifest.pipeline
        if pipeline is None:
            # The manifest was replaced between two looks.
            raise ModelUnusable("the model was a pipeline and is none any more; try again")
        if pipeline.detects:
            await self._languages.get_ready()
        prepared = self._prepared.get(model_id)
        if prepared is None or prepared.manifest is not manifest:
            if self._around is None:
                raise RuntimeError("ask_through was not called")
            model = PipelineModel(model_id, manifest.model_version, pipeline)
            gives_rights = pipeline.rights is Rights.PIPELINE and self._trusted.match(model_id)
            prepared = PreparedPipeline(model, manifest, self._around, gives_rights=gives_rights)
            self._prepared[model_id] = prepared
            self._counts.keep(model_id, pipeline.steps)
        return prepared


def _check_may_give(models: Sequence[str], identity: Identity) -> None:
    """Check that a caller may have a pipeline give the right to its models. Raises PermissionDenied."""
    identity.check_right(Right.MANAGE)
    foreign = [model for model in models if not identity.may_use(model)]
    if foreign:
        identity.counters.denied += 1
        raise PermissionDenied(
            f'the pipeline has "Rights": "pipeline", and the caller may not manage {", ".join(foreign)};'
            " ask the operator for these models, or leave out Rights"
        )


@contextmanager
def _naming_the_step(model_id: ModelId, pipeline: Pipeline, model: str) -> Iterator[None]:
    """Raise the errors of a model as those of the first step that asks it."""
    try:
        yield
    except ServingError as error:
        name, step = next((name, step) for name, step in pipeline.steps.items() if model in step.ask)
        raise failure(model_id, name, Onward.FAILED, error, step) from error
