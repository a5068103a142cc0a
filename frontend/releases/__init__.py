"""Releases on the frontend: which version of a name answers a call, what versions on trial show, and what follows."""
