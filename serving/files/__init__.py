"""Configuration files that are read again when they change, and certificates."""
