from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.access.callers import MINE, THEIRS, access_file
from tests.end_to_end.processes import Service, running_service, transports


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a model of the callers, and one of another tenant."""
    volume = tmp_path_factory.mktemp("volume") / "models"
    for name in (MINE, THEIRS):
        shutil.copytree(ROOT / "models" / "clinc150-travel", volume / name)
    return volume


@pytest.fixture(scope="session", params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def guarded(transport: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All services in one process, open only to the callers in an access file."""
    folder = tmp_path_factory.mktemp("guarded")
    flags = ("--access-file", str(access_file(folder)))
    with running_service("model_service", models, folder, *flags, transport=transport) as service:
        yield service
