"""The images that tests inspect and run: built as an operator builds them, and rebuilt only after a change."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import Any, Final

from tests.end_to_end.containers.engine import BASE, docker

TAG: Final = "test"
FRONTEND: Final = f"intent-frontend:{TAG}"
PREDICTOR: Final = f"intent-predictor:{TAG}"
MODEL_SERVICE: Final = f"intent-model-service:{TAG}"

_BUILD_SECONDS: Final = 1200


@functools.cache
def build_all() -> None:
    """Build all images."""
    for image, arguments in (
        (FRONTEND, ("--file", "Dockerfile.frontend")),
        (MODEL_SERVICE, ("--file", "Dockerfile.model_service")),
        (PREDICTOR, ("--file", "Dockerfile.predictor", *_index())),
    ):
        docker("build", "--tag", image, *arguments, ".", timeout=_BUILD_SECONDS)


def build_environment() -> dict[str, str]:
    """Return the environment variables that Compose needs for a build."""
    index = torch_index()
    return {} if index is None else {"TORCH_INDEX_URL": index}


@functools.cache
def torch_index() -> str | None:
    """Return the index to install PyTorch from: that of the environment, or pip's if the base image configures one.

    ``None`` leaves the choice to the Dockerfile.
    """
    named = os.environ.get("TORCH_INDEX_URL")
    if named is not None:
        return named
    ask = ["docker", "run", "--rm", BASE, "pip", "config", "get", "global.find-links"]
    return "pip" if subprocess.run(ask, capture_output=True, timeout=300, check=False).returncode == 0 else None


def size_of(image: str) -> int:
    """Return the size of an image, in bytes."""
    return int(described(image)["Size"])


def described(image: str) -> dict[str, Any]:
    """Return the engine's description of an image."""
    description: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return description


def has_package(image: str, package: str) -> bool:
    """Return whether Python finds the package in the image."""
    code = f"import importlib.util; print(importlib.util.find_spec({package!r}) is not None)"
    return docker("run", "--rm", "--entrypoint", "python", image, "-c", code) == "True"


def _index() -> tuple[str, ...]:
    index = torch_index()
    return () if index is None else ("--build-arg", f"TORCH_INDEX_URL={index}")
