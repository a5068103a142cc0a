"""What a version is asked before it goes live: the example of its manifest."""

from __future__ import annotations

from typing import Final

from serving.domain.errors import ReleaseRefused
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query

ANY_DOCUMENT: Final = "hello"
"""What a version is asked whose manifest has no example."""


def example_query(model_id: ModelId, manifest: Manifest, caller: str = "") -> Query:
    """Return what the version ``model_id`` is asked, in the name of ``caller``."""
    document = ANY_DOCUMENT if manifest.example is None else manifest.example.document
    return Query(model_id, document, caller=caller)


def check_answer(manifest: Manifest, answer: Prediction) -> None:
    """Return if ``answer`` is what the manifest's example has to be answered with.

    The best label counts, whatever the threshold makes of it.

    Raises:
        ReleaseRefused: it is another one.
    """
    expected = None if manifest.example is None else manifest.example.label
    best = answer.label if answer.fallback is None else answer.fallback.best.label
    if expected is not None and best != expected:
        raise ReleaseRefused(
            f"it answers {best!r} to the document of its manifest's Example, which says {expected!r};"
            " publish a version that answers it"
        )
