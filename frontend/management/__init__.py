"""Management of models and releases: which exist, which are live or in memory, and how they change."""
