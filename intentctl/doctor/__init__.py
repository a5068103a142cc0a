"""What is wrong with a model: with its folder, and with what it is asked since it serves."""
