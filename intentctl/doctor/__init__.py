"""Diagnosis of a model: faults in its folder, and in the queries that it receives while it serves."""
