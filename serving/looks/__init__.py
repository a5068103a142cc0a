"""When what is known of a model's files has to be compared with them, and how thousands are compared."""
