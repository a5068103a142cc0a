"""Limits on what a peer costs besides its calls."""
