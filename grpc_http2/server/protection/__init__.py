"""Limits on what a peer costs apart from its calls."""
