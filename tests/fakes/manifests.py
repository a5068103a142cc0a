"""A fake of the catalog: manifests without files, so that a test of an engine's backend needs no volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving.domain.errors import ModelNotFound
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId

UNPUBLISHED: Final = "unpublished"
"""The one model that has no manifest."""


def a_manifest(**keys: Any) -> Manifest:
    """Return a manifest of ``keys`` and of an algorithm that no test looks at."""
    return Manifest.model_validate({"Algorithm": "any", **keys})


class FakeManifests:
    """A catalog in which every model but ``UNPUBLISHED`` has a manifest.

    Args:
        keys: manifest keys of all models.
        of_models: further manifest keys by model id.
    """

    def __init__(
        self, keys: Mapping[str, Any] | None = None, of_models: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._keys = dict(keys or {})
        self.of_models = dict(of_models or {})
        """Keys by model id; a test changes them to publish another manifest."""

    async def manifest(self, model_id: ModelId) -> Manifest:
        if model_id == UNPUBLISHED:
            raise ModelNotFound("no model has this runId")
        return a_manifest(**{**self._keys, **self.of_models.get(model_id, {})})
