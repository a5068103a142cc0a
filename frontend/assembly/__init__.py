"""Construction of the frontend's objects from its settings."""
