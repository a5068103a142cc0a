"""Metrics of several workers, merged into those of one service."""
