"""Engines that answer queries, one package each, and the code that they share."""
