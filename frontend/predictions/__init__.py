"""Answers to queries: release, quota, route and engine."""
