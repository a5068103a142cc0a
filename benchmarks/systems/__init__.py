"""The systems that are measured: one file each, and the programs that run inside their environments."""
