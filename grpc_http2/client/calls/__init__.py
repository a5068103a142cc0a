"""Calls on the client: their kinds, their attempts and their retries."""
