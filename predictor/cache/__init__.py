"""Models in memory: loaded once for all concurrent callers, evicted when least recently used."""
