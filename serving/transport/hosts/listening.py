"""Failures to listen on an address."""

from __future__ import annotations


class CannotListen(Exception):
    """The address is in use, or does not belong to this machine. The message names the address."""
