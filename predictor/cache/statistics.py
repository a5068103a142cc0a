"""Counters of the model manager since its start."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from serving.domain.errors import ServingError
from serving.telemetry.histogram import Histogram

LOAD_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Histogram bounds of the time of a load, in seconds: from a small model in the page cache to a very slow volume."""

AGE_SECONDS: Final = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86_400.0, 7 * 86_400.0)
"""Histogram bounds of the time since the last use of an evicted model, in seconds: from one second to a week."""


@dataclass(slots=True)
class CacheStatistics:
    """Counters that only grow. Changed on the event loop."""

    hits: int = 0
    """Requests for a model in memory."""
    misses: int = 0
    """Requests for a model that was not in memory."""
    miss_seconds: Histogram = field(default_factory=lambda: Histogram(LOAD_SECONDS))
    """Time that each of these requests waited for the model."""
    loads: int = 0
    """Models loaded, including replacements."""
    load_seconds: Histogram = field(default_factory=lambda: Histogram(LOAD_SECONDS))
    """Time that each load took."""
    load_wait_seconds: Histogram = field(default_factory=lambda: Histogram(LOAD_SECONDS))
    """Time that each load waited for other loads to end before it began."""
    load_failures: int = 0
    """Loads that failed."""
    replacements_refused: int = 0
    """Copies that were to replace a model in memory but could not be loaded; the model in memory continues to serve."""
    evictions: int = 0
    """Models evicted to make room."""
    eviction_age_seconds: Histogram = field(default_factory=lambda: Histogram(AGE_SECONDS))
    """Time since the last use of each evicted model: how long an unused model stays in memory."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed loads, and failed answers of loaded models, by reason: the kind of error, as ``invalid_model_file``."""

    def count_load_failure(self, error: ServingError) -> None:
        """Count a load that ended with ``error``."""
        self.load_failures += 1
        self.count_failure(error)

    def count_failure(self, error: ServingError) -> None:
        """Count a load or an answer that ended with ``error``."""
        self.failures[re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()] += 1
