"""Check of a pipeline against the models on a volume. Blocks on the volume."""

from __future__ import annotations

from collections.abc import Sequence

from serving.domain.errors import InvalidManifest, ServingError, Unavailable
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of, versioned
from serving.domain.pipeline_checks import Version, asked_next, faults_of
from serving.domain.pipelines.pipeline import MOST_DEPTH, Pipeline
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore


def pipeline_faults(store: ModelStore, model_id: ModelId, pipeline: Pipeline) -> list[str]:
    """Return what is wrong with a pipeline, given the models on the volume; each fault names its step.

    Args:
        store: store of the models.
        model_id: id of the pipeline, which need not be on the volume.
        pipeline: the pipeline.

    Raises:
        Unavailable: the volume does not answer.
    """
    inventory = Inventory(store)
    asked: dict[str, Sequence[Version] | ServingError] = {}
    due: Sequence[str] = pipeline.models
    for _ in range(MOST_DEPTH):
        for model in due:
            try:
                asked[model] = _versions(store, inventory, ModelId(model))
            except Unavailable:
                raise
            except ServingError as error:
                asked[model] = error
        due = asked_next(due, asked)
    return faults_of(model_id, pipeline, asked)


def check_pipeline(root: ModelStore, model_id: ModelId, manifest: Manifest) -> None:
    """Check the manifest of a pipeline against the models on the volume; accept any other manifest.

    Raises:
        InvalidManifest: the pipeline is wrong; the message names every fault.
    """
    if manifest.pipeline is None:
        return
    faults = pipeline_faults(root, model_id, manifest.pipeline)
    if faults:
        raise InvalidManifest(f"the pipeline cannot be published: {'; '.join(faults)}")


def _versions(store: ModelStore, inventory: Inventory, model_id: ModelId) -> Sequence[Version]:
    """Return each version that may answer for ``model_id``, which may be a name, a version or a label."""
    name, selector = reference_of(model_id)
    release = inventory.release(name)
    if release is None:
        return [_version(store, model_id)]
    versions = [release.version_of(selector)] if selector else list(release.live_versions())
    return [_version(store, versioned(name, version)) for version in versions]


def _version(store: ModelStore, model_id: ModelId) -> Version:
    return Version(model_id, store.read_manifest(model_id))
