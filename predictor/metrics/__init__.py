"""Prometheus metrics of the predictor."""
