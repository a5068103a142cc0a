"""Chaos: faults of all kinds at once, in processes and on the volume, while callers check every answer."""
