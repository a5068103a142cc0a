"""``intentctl pipeline``: check and draw pipelines."""
