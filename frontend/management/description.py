"""Description of one model."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from frontend.management.residency import EngineResidency
from frontend.management.volume import Volume
from frontend.releases.trials import Trials
from intent_serving_client.fields import from_fields
from intent_serving_client.releases import Release
from serving.call.call import Call
from serving.domain.errors import ModelNotFound, ServingError, no_such_model
from serving.domain.management import ModelDescription, ModelSummary, ReleaseState, Trial, VersionDescription
from serving.domain.model_id import ModelId, reference_of
from serving.domain.releases.views import view_of
from serving.domain.residency import ModelResidency
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore

log = structlog.get_logger()


class ReleaseStates:
    """Releases together with the counts of their versions on trial.

    Args:
        volume: reads releases.
        trials: counts of versions on trial.
    """

    def __init__(self, volume: Volume, trials: Trials) -> None:
        self._volume = volume
        self._trials = trials

    async def of(self, name: ModelId) -> ReleaseState:
        """Return the current release of a name.

        Raises:
            ModelNotFound: the name does not exist.
            ServingError: the release cannot be read.
        """
        return self.with_trials(name, view_of(await self._volume.existing_release(name)))

    def with_trials(self, name: ModelId, release: Release | None) -> ReleaseState:
        """Return a release together with its trial counts."""
        return ReleaseState(name, release, tuple(from_fields(Trial, counts) for counts in self._trials.of(name)))


class Descriptions:
    """Descriptions of models.

    Args:
        inventory: lists names, versions and releases.
        store: reads manifests.
        volume: runs these blocking reads in threads.
        states: adds trial counts to releases.
        residency: reports what is in memory.
    """

    def __init__(
        self, inventory: Inventory, store: ModelStore, volume: Volume, states: ReleaseStates, residency: EngineResidency
    ) -> None:
        self._inventory = inventory
        self._store = store
        self._volume = volume
        self._states = states
        self._residency = residency

    async def of(self, run_id: str, call: Call) -> ModelDescription:
        """Return the description of a model, or of a name and the version that ``run_id`` selects.

        Raises:
            InvalidModelId: ``run_id`` is not a model id.
            ModelNotFound: the name does not exist.
            ServingError: the volume does not respond.
        """
        model_id = await self._volume.resolved(run_id)
        name, version = reference_of(model_id)
        summary, versions, manifest = await self._volume.reading(self._read, name, model_id)
        if version and version not in summary.versions:
            raise ModelNotFound("the model has no such version or label")
        state = None if summary.release is None else self._states.with_trials(name, summary.release)
        return ModelDescription(summary, manifest, versions, state, tuple(await self._of_memory(model_id, call)))

    def _read(self, name: ModelId, model_id: ModelId) -> tuple[ModelSummary, tuple[VersionDescription, ...], str]:
        summary = self._inventory.summary(name)
        if summary is None:
            raise no_such_model(name)
        try:
            manifest = self._store.read_manifest(model_id).to_json()
        except ServingError:
            manifest = ""  # the summary, or the version's description, states why
        return summary, self._inventory.versions(name, summary.release), manifest

    async def _of_memory(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        try:
            return await self._residency.of(model_id, call)
        except ServingError as error:
            # A caller that diagnoses a model needs its description, above all when its engine is down.
            log.info("residency of the model is unknown", model=model_id, reason=str(error))
            return ()
