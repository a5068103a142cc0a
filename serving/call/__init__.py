"""A call that is being served: its deadline, its caller and its spans."""
