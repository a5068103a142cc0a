"""Metrics of several workers as those of one service."""
