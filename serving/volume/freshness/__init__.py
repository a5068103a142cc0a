"""When loaded models are compared with their files, and how thousands of files are compared."""
