"""Models that clients of the protocol can name, and their versions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from frontend.engines.backend import Manifests
from frontend.releases.rollouts import Rollout, Route
from frontend.routing.router import Router
from serving.domain.errors import InvalidModelId, ModelNotFound, ModelUnusable
from serving.domain.manifest import Manifest
from serving.domain.model_id import VERSION_MARK, ModelId, parse_model_id, parse_model_name, reference_of, versioned

FIRST_VERSION: Final = "1"
"""Version of models whose manifests have none, as Triton names it."""


class NamedModel(NamedTuple):
    """Existing model that a caller has named."""

    name: str
    """Name that the caller uses."""
    id: ModelId
    """Id of the model; for a name with a release and a request without a version, the id of the stable version."""
    requested: ModelId
    """Id in queries; in that case the name, so that the release selects the version that answers."""
    manifest: Manifest
    version: str
    """Version of the model: the only one of a model in a folder of its own, otherwise that of ``id``."""

    @property
    def is_versioned(self) -> bool:
        """Whether the name has versions in folders of their own."""
        return VERSION_MARK in self.id


class NamedModels:
    """Lookup of models by their names in the protocol: the id of a model, or a name that has versions.

    Args:
        manifests: manifests of the models.
        router: selects engines.
        route: resolves a name by its release.
    """

    def __init__(self, manifests: Manifests, router: Router, route: Callable[[ModelId], Awaitable[Route]]) -> None:
        self._manifests = manifests
        self._router = router
        self._route = route

    async def find(self, name: str, version: str = "") -> NamedModel:
        """Return the model ``name``; an empty ``version`` means the only one, or the one that the release selects.

        Raises:
            ModelNotFound: the model, or this version of it, does not exist.
            ServingError: the manifest cannot be obtained.
        """
        with in_words_of_the_protocol():
            requested = parse_model_id(name)
            route = await self._route(requested)
        if isinstance(route, Rollout):
            if version:
                return await self._version(name, route.selected(_as_selector(version)))
            with in_words_of_the_protocol():
                manifest = await self._manifests.manifest(route.stable)
            return NamedModel(name, route.stable, requested, manifest, route.release.stable)
        if VERSION_MARK in route:
            model = await self._version(name, route)
        else:
            try:
                with in_words_of_the_protocol():
                    manifest = await self._manifests.manifest(route)
            except ModelNotFound:
                if not version:
                    raise
                # The name may have versions but no release.
                return await self._version(name, versioned(route, _as_selector(version)))
            model = NamedModel(name, route, route, manifest, manifest.model_version or FIRST_VERSION)
        if version not in ("", model.version):
            raise unknown_version()
        return model

    async def live(self, name: ModelId) -> list[tuple[str, ModelId]]:
        """Return the live versions of ``name``, each with its model; empty if the name has no release.

        Raises:
            ServingError: the release cannot be determined.
        """
        route = await self._route(name)
        if not isinstance(route, Rollout):
            return []
        return [(reference_of(model_id).selector, model_id) for model_id in route.live()]

    async def _version(self, name: str, model_id: ModelId) -> NamedModel:
        try:
            manifest = await self._manifests.manifest(model_id)
        except ModelNotFound as error:
            raise unknown_version() from error
        return NamedModel(name, model_id, model_id, manifest, reference_of(model_id).selector)

    def check_engine(self, model: NamedModel) -> None:
        """Check that an engine is configured for the model. Nothing is loaded.

        Raises:
            NoBackend: no engine is configured for the model.
        """
        self._router.backend_for(model.manifest)

    async def is_ready(self, name: str, version: str = "") -> bool:
        """Return whether the model exists and has an engine; false for an unknown model, as in Triton.

        Raises:
            ServingError: the readiness cannot be determined at the moment.
        """
        try:
            self.check_engine(await self.find(name, version))
        except (ModelNotFound, ModelUnusable):
            return False
        return True


def _as_selector(version: str) -> ModelId:
    try:
        return parse_model_name(version)
    except InvalidModelId as error:
        raise unknown_version() from error


@contextmanager
def in_words_of_the_protocol() -> Iterator[None]:
    """Report a missing model in the terms of the protocol, whose clients have no runId."""
    try:
        yield
    except (InvalidModelId, ModelNotFound) as error:
        raise ModelNotFound("no model has this name; the repository index lists the models") from error


def unknown_version() -> ModelNotFound:
    """Return the error of a version that the model does not have."""
    return ModelNotFound("the model has no such version; leave the version empty, or use one of the model's metadata")
