"""Hosts services on Envoy, which runs Python inside of itself (package ``pyvoy``): the fast transport.

Two processes: the ``supervisor`` is the one that was started; it starts Envoy, passes signals on and reports its log.
Inside of Envoy, ``embedded`` is the ASGI application: it builds the workload and serves it through ``host``. They talk
through ``control``.
"""

from __future__ import annotations

import importlib.util
import sys


def what_is_missing() -> str | None:
    """Return what this machine lacks for Envoy, in plain words; ``None`` where nothing is missing."""
    for package in ("pyvoy", "envoy", "find_libpython"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package}"
    import find_libpython  # noqa: PLC0415 - known to be there only now

    if sys.platform == "linux" and find_libpython.find_libpython() is None:
        return "a shared libpython"
    return None
