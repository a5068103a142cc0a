"""What memory for models is worth: hit rates predicted from popularity, bytes and budget. Pure Python, no NumPy."""
