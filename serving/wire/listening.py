"""Failures to listen on an address."""

from __future__ import annotations


class CannotListen(Exception):
    """The address is taken, or does not belong to this machine. The message tells the operator which address."""
