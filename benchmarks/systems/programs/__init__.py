"""Programs that run inside the environments of peers, with this project's root on their Python path."""
