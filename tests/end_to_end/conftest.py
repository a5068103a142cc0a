from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.end_to_end.processes import Stack, stack
from tests.samples import copy_samples


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of this folder that belong to no other set, so that none of them is among the fast ones."""
    for item in items:
        others = {"alone", "containers"}.intersection(mark.name for mark in item.iter_markers())
        if Path(__file__).parent in item.path.parents and not others:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services over a copy of the sample models, to which tests may add models."""
    models = tmp_path_factory.mktemp("volume") / "models"
    copy_samples(models)
    with stack(models, tmp_path_factory.mktemp("logs")) as both:
        yield both


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty folder for models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
