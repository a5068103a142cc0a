"""Configuration files and certificates that are reloaded when they change."""
