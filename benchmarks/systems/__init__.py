"""The measured systems, one file each, and the programs that run inside their environments."""
