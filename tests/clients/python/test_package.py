from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import intent_serving_client
import serving.client
from tests.conftest import ROOT


def loaded_by(program: str) -> set[str]:
    """Return the modules that are loaded after ``program`` has run in a process of its own."""
    script = f"import sys\n{program}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_every_public_name_can_be_imported() -> None:
    for name in intent_serving_client.__all__:
        assert getattr(intent_serving_client, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = intent_serving_client.absent  # type: ignore[attr-defined]


def test_the_services_have_the_same_classes_under_the_former_path() -> None:
    for name in serving.client.__all__:
        assert getattr(serving.client, name) is getattr(intent_serving_client, name)


def test_a_client_loads_nothing_but_grpcio_and_protobuf() -> None:
    loaded = loaded_by("from intent_serving_client import IntentClient, ManagementClient; IntentClient('127.0.0.1:1')")
    # grpcio itself loads further packages of its family where they are installed.
    of_grpcio = loaded_by("import grpc")
    others = {name.partition(".")[0] for name in loaded - of_grpcio} - set(sys.stdlib_module_names)
    assert others <= {"intent_serving_client", "google", "grpc", "typing_extensions"}


def test_the_terms_alone_load_neither_stubs_nor_channels() -> None:
    loaded = loaded_by("from serving.domain.prediction import Query")
    assert "intent_serving_client.prediction" in loaded
    assert not {"intent_serving_client.channels", "intent_serving_client.client", "google.protobuf"} & loaded


@pytest.mark.parametrize("settings", ["pyproject.toml", "clients/python/pyproject.toml"])
def test_the_wheels_of_one_release_require_each_other(settings: str) -> None:
    pins = re.findall(r'"intent-serving-\w+(?:\[\w+\])?==([^"]+)"', Path(ROOT, settings).read_text())
    assert pins
    assert set(pins) == {intent_serving_client.VERSION}
