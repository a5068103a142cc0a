"""Command line of the project: start services, send queries, list and train models."""
