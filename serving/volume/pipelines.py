"""Check of a pipeline against the models on a volume. Blocks on the volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serving.domain.errors import InvalidManifest, ServingError, Unavailable
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId, reference_of, versioned
from serving.domain.pipeline_checks import Version, asked_next, faults_of
from serving.domain.pipelines.pipeline import ALGORITHM, MOST_DEPTH, Pipeline, listed
from serving.domain.pipelines.step import Step
from serving.volume.inventory import Inventory
from serving.volume.model_store import MANIFEST_FILE, ModelStore


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


def pipelines_that_ask(store: ModelStore, model_id: ModelId) -> Iterator[tuple[ModelId, list[str]]]:
    """Yield each pipeline on the volume that asks a model, and the names of the steps that do.

    Manifests that cannot be read are passed over.

    Args:
        store: store of the models.
        model_id: the model. A name stands for all of its versions and labels.

    Raises:
        VolumeUnavailable: the volume cannot be listed.
    """
    name, selector = reference_of(model_id)
    for folder in store.folders():
        for pipeline_id in () if folder == name else (folder, *store.versions(folder)):
            steps = [
                step_name
                for step_name, step in _steps_of(store, pipeline_id).items()
                if any(asked == model_id or (not selector and _name_of(asked) == name) for asked in step.ask)
            ]
            if steps:
                yield pipeline_id, steps


def _steps_of(store: ModelStore, model_id: ModelId) -> Mapping[str, Step]:
    """Return the steps of a pipeline; none for any other model."""
    try:
        data = store.read(model_id, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        # Most manifests of a volume are those of other models, and reading them as JSON would take most of the time.
        pipeline = Manifest.parse(data).pipeline if ALGORITHM.encode() in data else None
    except ServingError:
        return {}
    return {} if pipeline is None else pipeline.steps


def _name_of(model: str) -> ModelId:
    return reference_of(ModelId(model)).name


def check_pipeline(root: ModelStore, model_id: ModelId, manifest: Manifest) -> None:
    """Check the manifest of a pipeline against the models on the volume; accept any other manifest.

    Raises:
        InvalidManifest: the pipeline is wrong; the message names every fault.
    """
    if manifest.pipeline is None:
        return
    faults = pipeline_faults(root, model_id, manifest.pipeline)
    if faults:
        raise InvalidManifest(f"the pipeline cannot be published: {listed(faults)}")


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
