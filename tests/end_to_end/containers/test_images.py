"""What is in the images, and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.containers.engine import BASE, docker
from tests.end_to_end.containers.images import (
    FRONTEND,
    FRONTEND_WITHOUT_ENVOY,
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
    """A copy of the frontend's image into which torch has found its way."""
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


@pytest.mark.parametrize(("image", "most"), [(FRONTEND, 250), (FRONTEND_WITHOUT_ENVOY, 120)])
def test_the_frontends_image_is_small(image: str, most: int, figure: Callable[[str], None]) -> None:
    beyond = (size_of(image) - size_of(BASE)) / MEGABYTE

    figure(f"{image}: {beyond:.0f} MB beyond the base")
    assert beyond <= most


@pytest.mark.parametrize("image", [PREDICTOR, MODEL_SERVICE])
def test_the_size_of_the_other_images_is_told(image: str, figure: Callable[[str], None]) -> None:
    beyond = (size_of(image) - size_of(BASE)) / MEGABYTE

    figure(f"{image}: {beyond:.0f} MB beyond the base")
    # PyTorch's builds for graphics cards are several times as large.
    assert beyond <= 1000


@pytest.mark.parametrize("image", [FRONTEND, FRONTEND_WITHOUT_ENVOY])
def test_the_frontends_image_has_no_torch(image: str) -> None:
    assert_without_torch(image)


def test_a_copy_with_torch_in_it_is_found_out(frontend_with_torch: str) -> None:
    with pytest.raises(AssertionError, match="torch"):
        assert_without_torch(frontend_with_torch)


@pytest.mark.parametrize(("image", "there"), [(FRONTEND, True), (FRONTEND_WITHOUT_ENVOY, False), (MODEL_SERVICE, True)])
def test_envoy_is_in_the_images_that_are_to_have_it(image: str, there: bool) -> None:
    code = "from serving.transport import envoy; print(envoy.what_is_missing())"
    missing = docker("run", "--rm", "--entrypoint", "python", image, "-c", code)

    assert missing == ("None" if there else "the package pyvoy")


def test_the_predictors_image_can_train() -> None:
    assert has_package(PREDICTOR, "torch")
    assert "--validation-fraction" in docker(
        "run", "--rm", "--entrypoint", "python", PREDICTOR, "-m", "intentctl", "train", "--help"
    )


@pytest.mark.parametrize("image", [FRONTEND, FRONTEND_WITHOUT_ENVOY, PREDICTOR, MODEL_SERVICE])
def test_an_image_says_how_it_is_run(image: str) -> None:
    configuration = described(image)["Config"]

    assert configuration["User"] == "10001:10001"
    assert configuration["StopSignal"] == "SIGTERM"
    assert configuration["Healthcheck"]["Test"] == ["CMD", "python", "-m", "serving.health_check"]
    # A shell in between would not pass the signal on.
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


def test_a_transport_that_does_not_exist_stops_the_build() -> None:
    with pytest.raises(AssertionError, match="TRANSPORT is 'envoi'"):
        # What a build that fails leaves behind is taken away too.
        docker("build", "--force-rm", "--file", "Dockerfile.frontend", "--build-arg", "TRANSPORT=envoi", ".")
