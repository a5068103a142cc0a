"""Releases of names that have versions: their contents and their changes."""
