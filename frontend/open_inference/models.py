"""The models that clients of the protocol can name, and their versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from frontend.backends.backend import Manifests
from frontend.router import Router
from serving.errors import InvalidModelId, ModelNotFound, ModelUnusable
from serving.manifest import Manifest
from serving.model_id import ModelId, parse_model_id

FIRST_VERSION: Final = "1"
"""What Triton calls it: the version of models whose manifests tell none."""


class NamedModel(NamedTuple):
    """A model that is there."""

    id: ModelId
    manifest: Manifest

    @property
    def version(self) -> str:
        """The one version there is of it."""
        return self.manifest.model_version or FIRST_VERSION


class NamedModels:
    """Finds models by what the protocol calls them: the model's id is its name.

    Args:
        manifests: knows the models.
        router: knows the engines.
    """

    def __init__(self, manifests: Manifests, router: Router) -> None:
        self._manifests = manifests
        self._router = router

    async def find(self, name: str, version: str = "") -> NamedModel:
        """Return the model ``name``; an empty ``version`` is the one that is there.

        Raises:
            ModelNotFound: there is no such model, or not in this version.
            ServingError: its manifest cannot be had.
        """
        with in_words_of_the_protocol():
            model_id = parse_model_id(name)
            model = NamedModel(model_id, await self._manifests.manifest(model_id))
        if version not in ("", model.version):
            raise unknown_version()
        return model

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
