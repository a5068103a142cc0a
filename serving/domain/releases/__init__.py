"""Releases of names that have versions: what they say and how they change."""
