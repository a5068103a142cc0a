"""Evaluation of a model's answers, and comparison of the answers of two models."""
