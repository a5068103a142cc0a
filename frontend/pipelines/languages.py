"""Detection of a document's language by py3langid, which is loaded when a pipeline first needs it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from serving.domain.errors import Unavailable
from serving.domain.prediction import Fallback, Prediction, ScoredLabel

log = structlog.get_logger()

LEAST_SCORE: Final = 0.1
"""Minimum score of a language. Texts of a word or two that many languages share have less."""
UNKNOWN: Final = "und"
"""Label of a document whose language is not certain enough, as in ISO 639."""
_MOST_CHARACTERS: Final = 1000
"""Number of characters that are looked at: more of them change no answer, and take time from other callers."""


class LanguageDetector:
    """Detects languages. Belongs to one event loop."""

    def __init__(self) -> None:
        self._identifier: Any = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`detect` may be called."""
        return self._identifier is not None

    async def get_ready(self) -> None:
        """Load the library and its model, once.

        Raises:
            Unavailable: they cannot be loaded.
        """
        if self._loading is None or (self._loading.done() and not self.is_ready):
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    def detect(self, document: str) -> Prediction:
        """Return the language as a label; :data:`UNKNOWN` if no language is certain enough. REQUIRES: it is ready."""
        language, score = self._identifier.classify(document[:_MOST_CHARACTERS])
        found = ScoredLabel(language, score)
        if score < LEAST_SCORE:
            return Prediction(UNKNOWN, 0.0, (), "", "", Fallback(found, LEAST_SCORE))
        return Prediction(language, score, (), "", "")

    async def close(self) -> None:
        """Wait until nothing is loaded."""
        if self._loading is not None:
            await asyncio.wait({self._loading})

    async def _load(self) -> None:
        try:
            self._identifier = await asyncio.to_thread(_identifier)
        except Exception as error:
            log.exception("the detector of languages cannot be loaded")
            raise Unavailable("the detector of languages cannot be loaded; the service's log has the reason") from error


def _identifier() -> Any:
    # NumPy and the model take 100 MB and a second, which a frontend without such a pipeline saves.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
