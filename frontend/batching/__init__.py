"""Batching and counting of the queries that are sent to engines."""
