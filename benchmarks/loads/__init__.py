"""Programs and functions that put load on a system."""
