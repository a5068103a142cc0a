from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.containers.compose import ComposeStack, compose_stack
from tests.end_to_end.containers.engine import what_is_missing
from tests.end_to_end.containers.images import build_all
from tests.samples import copy_samples


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """Build the images of this tree, or skip the tests and say why no Docker engine is available."""
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    build_all()


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """The stack that ``docker-compose up --build`` starts, over a copy of the sample models; tests may add models."""
    models = tmp_path_factory.mktemp("volume") / "models"
    copy_samples(models)
    with compose_stack(models, tmp_path_factory.mktemp("compose"), "--build") as running:
        yield running


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of a stack."""
    return tmp_path_factory.mktemp("compose")
