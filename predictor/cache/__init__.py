"""Models in memory: loaded once however many ask, evicted when least recently used."""
