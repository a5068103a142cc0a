"""Inventory of the volume: names, their versions and releases. Every method blocks on the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from intent_serving_client import releases as seen
from serving.domain.errors import ModelIncomplete, ModelNotFound, ModelUnusable, ServingError
from serving.domain.management import ModelSummary, VersionDescription
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, reference_of, versioned
from serving.domain.releases.release import Release
from serving.domain.releases.views import view_of
from serving.volume.model_store import ModelStore

UNRELEASED: Final = "no version of this model is released; release one, or request one as name@version"

_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class _Model:
    """Contents of a model's folder."""

    manifest: Manifest | None
    bytes: int
    problem: str


class Inventory:
    """Lists the existing models.

    Args:
        store: store of the models.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def names(self) -> list[ModelId]:
        """Return the names of all folders, sorted; not all folders need be models.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        return self._store.folders()

    def release(self, name: ModelId) -> Release | None:
        """Return the release of a name; ``None`` if the name has no release.

        Raises:
            InvalidRelease: the release is invalid.
            ServingError: as :meth:`ModelStore.read` does.
        """
        return None if self._store.release_file(name) is None else self._store.read_release(name)

    def existing_release(self, name: ModelId) -> Release | None:
        """Return the release of a name, as :meth:`release` does, and require the folder of the name to exist.

        Raises:
            ModelNotFound: the folder is missing.
            ServingError: as :meth:`release` does.
        """
        release = self.release(name)
        if release is None:
            self._store.fingerprint(name)
        return release

    def answering(self, model_id: ModelId) -> ModelId:
        """Return the model that answers calls for ``model_id``: of a name alone, the stable version of its release.

        Raises:
            ModelUnusable: the name has versions, but no release.
            ServingError: as :meth:`release` does.
        """
        name, selector = reference_of(model_id)
        release = self.release(name)
        if release is not None:
            return versioned(name, release.version_of(selector or "stable"))
        versions = [] if selector else self.version_names(name)
        if versions and self._model(name) is None:
            more = f", and {len(versions) - _MOST_NAMED} more" if len(versions) > _MOST_NAMED else ""
            named = ", ".join(f"{name}@{version}" for version in versions[:_MOST_NAMED])
            raise ModelUnusable(f"no version of {name} is released; release one, or give one: {named}{more}")
        return model_id

    def version_names(self, name: ModelId) -> list[str]:
        """Return the versions of a name, sorted.

        Raises:
            VolumeUnavailable: the volume does not answer.
        """
        return [reference_of(model_id).selector for model_id in self._store.versions(name)]

    def summary(self, name: ModelId) -> ModelSummary | None:
        """Return the summary of a name; ``None`` if the name is not a model.

        Raises:
            VolumeUnavailable: the volume does not answer.
        """
        problem = ""
        release: Release | None = None
        try:
            release = self.release(name)
        except ModelNotFound:
            return None
        except ServingError as error:
            problem = str(error)
        versions = tuple(self.version_names(name))
        if release is None and not problem:
            model = self._model(name)
            if model is not None:
                return _summary(name, model, versions, None)
            return ModelSummary(name, versions=versions, problem=UNRELEASED) if versions else None
        if release is None:
            return ModelSummary(name, versions=versions, problem=problem)
        stable = self._model(versioned(name, release.stable))
        if stable is None:
            missing = f"its stable version {release.stable} is missing; roll back, or publish it again"
            return ModelSummary(name, versions=versions, release=view_of(release), problem=missing)
        return _summary(name, stable, versions, release)

    def versions(self, name: ModelId, release: seen.Release | None) -> tuple[VersionDescription, ...]:
        """Return the versions of a name, sorted, with their roles in ``release``.

        Raises:
            VolumeUnavailable: the volume does not answer.
        """
        roles = {} if release is None else release.live_versions()
        described: list[VersionDescription] = []
        for model_id in self._store.versions(name):
            version = reference_of(model_id).selector
            model = self._model(model_id)
            if model is None:
                continue
            manifest = model.manifest
            described.append(
                VersionDescription(
                    version,
                    "" if manifest is None else manifest.model_version,
                    "" if manifest is None else manifest.algorithm,
                    0 if manifest is None else len(manifest.classes),
                    model.bytes,
                    model.problem,
                    tuple(roles.get(version, ())),
                )
            )
        return tuple(described)

    def _model(self, model_id: ModelId) -> _Model | None:
        """Return the contents of a model's folder; ``None`` if the model has no manifest."""
        size = 0
        try:
            fingerprint = self._store.fingerprint(model_id)
            size = sum(file.size for file in fingerprint.files if file)
            manifest = self._store.read_manifest(model_id)
        except (ModelNotFound, ModelIncomplete):
            return None
        except ServingError as error:
            return _Model(None, size, str(error))
        needs_more = fingerprint.missing and not manifest.is_elsewhere
        return _Model(manifest, size, f"no {', no '.join(fingerprint.missing)}" if needs_more else "")


def _summary(name: ModelId, model: _Model, versions: tuple[str, ...], release: Release | None) -> ModelSummary:
    manifest = model.manifest
    if manifest is None:
        return ModelSummary(name, bytes=model.bytes, versions=versions, release=view_of(release), problem=model.problem)
    return ModelSummary(
        name,
        manifest.algorithm,
        manifest.model_version,
        len(manifest.classes),
        model.bytes,
        versions,
        view_of(release),
        model.problem,
    )
