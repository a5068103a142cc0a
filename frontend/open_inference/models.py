"""The models that clients of the protocol can name, and their versions."""

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
"""What Triton calls it: the version of models whose manifests tell none."""


class NamedModel(NamedTuple):
    """A model that is there."""

    name: str
    """What the caller calls it."""
    id: ModelId
    """Of a name with a release and no version: the stable one's."""
    asked: ModelId
    """What queries name: then, the name, so that the release says who answers."""
    manifest: Manifest
    version: str
    """Of a model in a folder of its own, the one version there is of it; else that of ``id``."""

    @property
    def is_versioned(self) -> bool:
        """Whether its name has versions in folders of their own."""
        return VERSION_MARK in self.id


class NamedModels:
    """Finds models by what the protocol calls them: the model's id is its name; of a name that has versions, the name.

    Args:
        manifests: knows the models.
        router: knows the engines.
        route: knows the releases.
    """

    def __init__(self, manifests: Manifests, router: Router, route: Callable[[ModelId], Awaitable[Route]]) -> None:
        self._manifests = manifests
        self._router = router
        self._route = route

    async def find(self, name: str, version: str = "") -> NamedModel:
        """Return the model ``name``; an empty ``version`` is the one that is there, or what the release says.

        Raises:
            ModelNotFound: there is no such model, or not in this version.
            ServingError: its manifest cannot be had.
        """
        with in_words_of_the_protocol():
            asked = parse_model_id(name)
            route = await self._route(asked)
        if isinstance(route, Rollout):
            if version:
                return await self._version(name, route.selected(_as_selector(version)))
            with in_words_of_the_protocol():
                manifest = await self._manifests.manifest(route.stable)
            return NamedModel(name, route.stable, asked, manifest, route.release.stable)
        if VERSION_MARK in route:
            model = await self._version(name, route)
        else:
            try:
                with in_words_of_the_protocol():
                    manifest = await self._manifests.manifest(route)
            except ModelNotFound:
                if not version:
                    raise
                # It may have versions and no release.
                return await self._version(name, versioned(route, _as_selector(version)))
            model = NamedModel(name, route, route, manifest, manifest.model_version or FIRST_VERSION)
        if version not in ("", model.version):
            raise unknown_version()
        return model

    async def live(self, name: ModelId) -> list[tuple[str, ModelId]]:
        """Return what the release of ``name`` has live: each version, and its model; none where it has no release.

        Raises:
            ServingError: it cannot be told.
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
        """Return where an engine is there for the model. Nothing is loaded.

        Raises:
            NoBackend: none is configured for it.
        """
        self._router.backend_for(model.manifest)

    async def is_ready(self, name: str, version: str = "") -> bool:
        """Return whether the model is there and has an engine; no, where there is no such model, as Triton says.

        Raises:
            ServingError: it cannot be told at the moment.
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
    """Tell of a model that is not there in the words that clients of the protocol know; they have no runId."""
    try:
        yield
    except (InvalidModelId, ModelNotFound) as error:
        raise ModelNotFound("no model has this name; the repository index lists those that are there") from error


def unknown_version() -> ModelNotFound:
    """Return the error of a version that the model does not have."""
    return ModelNotFound("the model has no such version; leave the version empty, or take it from the model's metadata")
