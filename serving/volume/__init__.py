"""The shared volume: models and releases, read safely and written so that no reader sees half of them."""
