"""The checks of ``scripts/release`` on images, made on those of this tree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from intent_serving_client import VERSION
from tests.conftest import ROOT
from tests.end_to_end.containers.images import FRONTEND, TAG

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

PROGRAMS = ROOT / "deploy" / "python"
MINUTES = 600


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, PROGRAMS / program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=MINUTES, check=False)


def check(version: str) -> subprocess.CompletedProcess[str]:
    return run("check_images.py", "--version", version, "--tag", TAG, "--models", str(ROOT / "models"))


def test_the_images_of_this_tree_would_be_released() -> None:
    checked = check(VERSION)

    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_image_that_says_another_version_is_not_released() -> None:
    refused = check("0.0.1")

    assert refused.returncode == 1
    assert f"has {VERSION!r} as org.opencontainers.image.version, not '0.0.1'" in refused.stderr


def test_the_components_of_an_image_are_those_of_its_system_too() -> None:
    listed = run("image_bom.py", *FRONTEND.split(":"))
    assert listed.returncode == 0, listed.stderr
    document = json.loads(listed.stdout)

    assert document["metadata"]["component"]["name"] == FRONTEND.partition(":")[0]
    names = {each["purl"].partition("@")[0] for each in document["components"] if "purl" in each}
    # pip is that of the base, in no folder of the service.
    assert {"pkg:pypi/grpcio", "pkg:pypi/pip", "pkg:generic/python", "pkg:deb/debian/libc6"} <= names
    assert not {"pkg:pypi/torch", "pkg:pypi/pytest"} & names
    references = [each["bom-ref"] for each in document["components"]]
    assert len(references) == len(set(references))
