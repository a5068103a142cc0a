"""Execution of pipelines: an engine whose models are other models."""
