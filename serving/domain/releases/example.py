"""The query that a version answers before going live: the example of its manifest."""

from __future__ import annotations

from typing import Final

from serving.domain.errors import ReleaseRefused
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query

ANY_DOCUMENT: Final = "hello"
"""Document for a version whose manifest has no example."""


def example_query(model_id: ModelId, manifest: Manifest, caller: str = "") -> Query:
    """Return the query for the version ``model_id``, on behalf of ``caller``."""
    document = ANY_DOCUMENT if manifest.example is None else manifest.example.document
    return Query(model_id, document, caller=caller)


def check_answer(manifest: Manifest, answer: Prediction) -> None:
    """Check that ``answer`` has the label that the manifest's example requires.

    The best label counts, whatever the threshold.

    Raises:
        ReleaseRefused: the answer has another label.
    """
    expected = None if manifest.example is None else manifest.example.label
    best = answer.label if answer.fallback is None else answer.fallback.best.label
    if expected is not None and best != expected:
        raise ReleaseRefused(
            f"the version answers {best!r} to the Example of its manifest, which expects {expected!r}; "
            "publish a version that gives the expected answer"
        )
