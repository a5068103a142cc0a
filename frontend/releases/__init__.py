"""Releases on the frontend: the version that answers a call, results of versions on trial, and consequences."""
