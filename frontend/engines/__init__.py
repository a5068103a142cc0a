"""The engines that answer queries, one room each, and what all of them use."""
