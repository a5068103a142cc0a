"""Comparison of loaded models with their files: the schedule, and the comparison of thousands of files."""
