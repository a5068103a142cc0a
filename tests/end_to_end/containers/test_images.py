"""Contents of the images, and what must be missing from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.containers.engine import BASE, docker
from tests.end_to_end.containers.images import (
    FRONTEND,
    MODEL_SERVICE,
    PREDICTOR,
    TAG,
    described,
    has_package,
    size_of,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

MEGABYTE = 1_000_000


@pytest.fixture
def frontend_with_torch() -> Iterator[str]:
    """A copy of the frontend's image with torch added to it."""
    image = f"intent-frontend:{TAG}-torch"
    dockerfile = f"""
        FROM {FRONTEND}
        USER root
        RUN mkdir "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch"
    """
    docker("build", "--tag", image, "-", text=dockerfile)
    yield image
    docker("rmi", image)


def assert_without_torch(image: str) -> None:
    assert [package for package in ("torch", "numpy", "predictor", "training") if has_package(image, package)] == []


@pytest.mark.parametrize(("image", "most"), [(FRONTEND, 110), (MODEL_SERVICE, 140)])
def test_the_image_of_what_callers_meet_is_small(image: str, most: int, figure: Callable[[str], None]) -> None:
    beyond = (size_of(image) - size_of(BASE)) / MEGABYTE

    figure(f"{image}: {beyond:.0f} MB beyond the base")
    assert beyond <= most


def test_the_predictors_image_has_no_pytorch_for_graphics_cards(figure: Callable[[str], None]) -> None:
    beyond = (size_of(PREDICTOR) - size_of(BASE)) / MEGABYTE

    figure(f"{PREDICTOR}: {beyond:.0f} MB beyond the base")
    # PyTorch builds for graphics cards are several times as large.
    assert beyond <= 1000


def test_the_frontends_image_has_no_torch() -> None:
    assert_without_torch(FRONTEND)


def test_a_copy_with_torch_in_it_is_found_out(frontend_with_torch: str) -> None:
    with pytest.raises(AssertionError, match="torch"):
        assert_without_torch(frontend_with_torch)


def test_the_predictors_image_can_train() -> None:
    assert has_package(PREDICTOR, "torch")
    assert "--validation-fraction" in docker(
        "run", "--rm", "--entrypoint", "python", PREDICTOR, "-m", "intentctl", "train", "--help"
    )


@pytest.mark.parametrize("image", [FRONTEND, PREDICTOR, MODEL_SERVICE])
def test_an_image_says_how_it_is_run(image: str) -> None:
    configuration = described(image)["Config"]

    assert configuration["User"] == "10001:10001"
    assert configuration["StopSignal"] == "SIGTERM"
    assert configuration["Healthcheck"]["Test"] == ["CMD", "health-check", "/tmp/health"]  # noqa: S108 - the container's
    # A shell in between would not forward the signal.
    assert configuration["Entrypoint"][0] == "python"
    assert "51001/tcp" in configuration["ExposedPorts"]
    assert configuration["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert configuration["Labels"]["org.opencontainers.image.title"].startswith("Intent Serving: ")


@pytest.mark.parametrize("image", [FRONTEND, PREDICTOR, MODEL_SERVICE])
def test_an_image_has_no_pip_and_nothing_that_pip_has_kept(image: str) -> None:
    look = "ls /opt/intent/bin; find / -xdev -path '*/.cache/pip' 2>/dev/null || true"
    seen = docker("run", "--rm", "--entrypoint", "sh", image, "-c", look).split()

    assert "python" in seen
    assert [name for name in seen if "pip" in name] == []
