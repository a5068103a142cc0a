"""The wheels as users install them: into empty environments, calling a real stack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.clients.documented import blocks
from tests.end_to_end.clients.environments import EmptyEnvironment, built_wheels, empty_environment
from tests.end_to_end.processes import Stack

pytestmark = pytest.mark.timeout(600)

CALLS = """
import asyncio, sys
from intent_serving_client import (
    AsyncIntentClient, ChannelOptions, IntentClient, ManagementClient, ModelNotFound, Query, Unavailable,
)

address, *fast = sys.argv[1:]
options = ChannelOptions(fast=bool(fast), attempts=2)

with IntentClient(address, options=options) as client:
    assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
    assert client.explain("clinc150", "make a 10 minute timer").explanation.labels[0].label == "timer"
    answered, missing = client.predict_batch([Query("banking77", "my card was swallowed"), Query("missing", "x")])
    assert (answered.label, type(missing)) == ("card_swallowed", ModelNotFound)

async def main():
    async with AsyncIntentClient(address, options=options) as client:
        assert (await client.predict("clinc150", "make a 10 minute timer")).label == "timer"
        try:
            await client.predict("missing", "x")
        except ModelNotFound as error:
            assert error.code.name == "NOT_FOUND"
        else:
            raise AssertionError("a missing model has answered")
    async with AsyncIntentClient("127.0.0.1:1", options=options, timeout=5) as client:
        try:
            await client.predict("clinc150", "x")
        except Unavailable:
            pass

asyncio.run(main())

with ManagementClient(address) as models:
    assert "clinc150" in [model.name for model in models.models()]
    assert models.describe("clinc150").summary.labels == 151
print("answered")
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def client(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> EmptyEnvironment:
    """An environment with the client alone."""
    environment = empty_environment(tmp_path_factory.mktemp("client") / "environment", wheels)
    environment.install("intent-serving-client")
    return environment


def test_the_client_brings_its_own_name_grpcio_and_protobuf_only(client: EmptyEnvironment) -> None:
    packages = client.names()
    assert packages >= {"intent_serving_client", "grpc", "google"}
    assert packages <= {"intent_serving_client", "grpc", "google", "typing_extensions.py"}


def test_the_client_is_typed_and_needs_nothing_that_windows_lacks(client: EmptyEnvironment) -> None:
    package = client.site_packages / "intent_serving_client"
    assert (package / "py.typed").exists()
    assert not (client.site_packages / "serving").exists()
    for source in package.rglob("*.py"):
        assert not re.search(
            r"^\s*(import|from) (fcntl|uvloop|pwd|resource|serving)\b|\bfork\(", source.read_text(), re.MULTILINE
        )


def test_the_client_alone_calls_a_real_stack(client: EmptyEnvironment, running: Stack) -> None:
    assert client.run(CALLS, running.frontend.address) == "answered\n"


def test_the_example_of_the_document_prints_what_it_says(client: EmptyEnvironment, running: Stack) -> None:
    program = blocks("python")[0].replace("127.0.0.1:51001", running.frontend.address)
    assert client.run(program) == blocks("")[0]


def test_every_example_in_python_can_be_compiled_and_finds_its_names(client: EmptyEnvironment) -> None:
    for program in blocks("python"):
        imports = "\n".join(re.findall(r"^(?:from|import) .*$", program, re.MULTILINE))
        client.run(f"compile({program!r}, 'example', 'exec')\n{imports}")


def test_the_fast_channel_is_an_extra(wheels: Path, client: EmptyEnvironment, running: Stack, tmp_path: Path) -> None:
    refused = client.run(
        "import asyncio\n"
        "from intent_serving_client import AsyncIntentClient, ChannelOptions, InvalidConnection\n"
        "async def main():\n"
        "    try:\n"
        "        AsyncIntentClient(options=ChannelOptions(fast=True))\n"
        "    except InvalidConnection as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n"
    )
    assert "intent-serving-client[fast]" in refused

    environment = empty_environment(tmp_path / "environment", wheels)
    environment.install("intent-serving-client[fast]")
    assert environment.names() - client.names() == {"grpc_http2", "ngh2", "structlog"}
    assert environment.run(CALLS, running.frontend.address, "fast") == "answered\n"


def test_the_services_add_one_name_to_site_packages_beside_their_client_and_library(
    wheels: Path, tmp_path: Path, running: Stack
) -> None:
    environment = empty_environment(tmp_path / "environment", wheels)
    environment.install("--no-deps", "intent-serving", "intent-serving-client", "intent-serving-http2")
    assert environment.names() == {
        "intent_serving", "intent_serving.pth", "intent_serving_client", "grpc_http2",
    }  # fmt: skip

    environment.install("--no-deps", "--no-compile", "--requirement", str(ROOT / "requirements" / "command_line.txt"))
    for module in ("frontend", "predictor", "serving.health_check", "intentctl"):
        run = f"import runpy, sys; sys.argv = [{module!r}, '--help']; runpy.run_module({module!r}, run_name='__main__')"
        assert "usage" in environment.run(run).lower()
    # Paths of import that users had before the client was a package of its own.
    program = "from serving.client import IntentClient; import sys\nfrom serving.stubs import prediction_service_pb2\n"
    ask = "print(IntentClient(sys.argv[1]).predict('clinc150', 'make a 10 minute timer').label)"
    assert environment.run(program + ask, running.frontend.address) == "timer\n"
