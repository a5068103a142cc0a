"""Capacity planning: hit rates predicted from popularity, model sizes and memory budget. Pure Python, no NumPy."""
