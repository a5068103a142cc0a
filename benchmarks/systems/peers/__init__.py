"""Servers of others as systems."""
