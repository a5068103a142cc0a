"""Releases of names that have versions: what they say, how they change, how a change is written."""
