"""Answers of models: a lease on the model, then its answer."""
