"""What the model manager has counted since its start."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from serving.errors import ServingError


@dataclass(slots=True)
class CacheStatistics:
    """Counters that only grow. Changed on the event loop."""

    hits: int = 0
    """Requests for a model in memory."""
    misses: int = 0
    """Requests for a model that was not in memory."""
    loads: int = 0
    """Models loaded, replacements included."""
    load_seconds: float = 0.0
    """Time that these loads took, together."""
    evictions: int = 0
    """Models taken out to make room."""
    eviction_age_seconds: float = 0.0
    """Time since the last use of each evicted model, together: what the cache remembers, on average, by evictions."""
    failures: Counter[str] = field(default_factory=Counter)
    """Loads, and answers of loaded models, that failed, by reason: the kind of error, as ``invalid_model_file``."""

    def count_failure(self, error: ServingError) -> None:
        """Count a load or an answer that ended with ``error``."""
        self.failures[re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()] += 1
