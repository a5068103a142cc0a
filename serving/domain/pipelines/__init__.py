"""Pipelines: models without weights, which send a document from one model to another by the labels of the answers."""
