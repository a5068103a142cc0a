"""Inference: acquires a lease on a model, then computes its answer."""
