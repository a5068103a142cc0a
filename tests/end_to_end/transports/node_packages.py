"""Packages of node for tests: pinned, and installed into pytest's cache."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def installed_packages(config: pytest.Config, wanted: Path) -> Path:
    """Return the folder of the packages that the folder ``wanted`` pins, which are installed if they are missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or no npm on the PATH")
    stored = getattr(config, "cache", None)
    if stored is None:
        pytest.skip("pytest's cache is off, into which packages of node are installed")
    cache: Path = stored.mkdir("transports-node")
    pins = hashlib.sha256((wanted / "package-lock.json").read_bytes()).hexdigest()
    installed = cache / pins[:16]
    if not installed.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            staged = Path(folder) / "staged"
            staged.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(wanted / name, staged / name)
            command = ["npm", "ci", "--prefix", str(staged), "--ignore-scripts", "--no-audit", "--no-fund"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                pytest.skip(f"npm cannot install the pinned packages: {run.stderr.strip()[-200:]}")
            # Another test process may have been faster; its folder is just as good.
            with contextlib.suppress(OSError):
                staged.rename(installed)
    return installed / "node_modules"
