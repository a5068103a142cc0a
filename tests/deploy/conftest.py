from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.manifests import KUSTOMIZATIONS, Manifests, render


@pytest.fixture(params=KUSTOMIZATIONS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """The shape with two services, bare and in overlays; each test runs on all of them."""
    return render(str(request.param))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty folder for models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
