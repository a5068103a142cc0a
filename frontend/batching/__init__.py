"""Queries on their way to an engine: sent in batches, and counted."""
