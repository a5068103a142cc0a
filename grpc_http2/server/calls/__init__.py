"""Calls on the server, from the headers of the request to the status."""
