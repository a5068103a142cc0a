"""A volume that answers ESTALE or EIO: one retry, then UNAVAILABLE; models in memory answer throughout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.client import IntentClient
from serving.domain.errors import Unavailable
from serving.domain.model_id import parse_model_id
from serving.volume.publishing import publish
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack
from tests.end_to_end.test_uploads import eventually, nothing_is_set_aside, resident, told
from tests.fakes.volume import FOLDER, OPEN, READ, STAT, FakeVolume, stack_over_fake_volume

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
RESIDENT = "resident"
MANY = 100
"""Number of faults that no number of retries overcomes."""

FAULTS = [(operation, error) for operation in (STAT, OPEN, READ) for error in ("ESTALE", "EIO")]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, FakeVolume]]:
    """Services over a fake volume, with one model in memory whose files are checked on every call."""
    folder = tmp_path_factory.mktemp("fake-volume")
    models = folder / "models"
    shutil.copytree(SAMPLE, models / RESIDENT)
    with stack_over_fake_volume(models, folder, "--preload", RESIDENT, "--freshness-seconds", "0") as both:
        yield both


@pytest.fixture
def both(opened: tuple[Stack, FakeVolume]) -> Iterator[Stack]:
    yield opened[0]
    opened[1].recover()


@pytest.fixture
def fake(opened: tuple[Stack, FakeVolume]) -> FakeVolume:
    return opened[1]


@pytest.fixture
def client(both: Stack) -> Iterator[IntentClient]:
    with IntentClient(both.frontend.address, timeout=30) as made:
        yield made


@pytest.mark.parametrize(("operation", "error"), FAULTS)
def test_files_that_fail_once_are_opened_again_and_served(
    both: Stack, fake: FakeVolume, client: IntentClient, operation: str, error: str
) -> None:
    model_id = a_cold_model(both, f"once-{operation}-{error}")
    fake.fail(model_id, operation, error, times=1)

    assert client.predict(model_id, DOCUMENT).label == "balance"

    assert fake.left() == 0, "the fault has come to pass"
    found = resident(model_id, both)
    assert found is not None
    assert found.leases == 0
    assert nothing_is_set_aside(both)


@pytest.mark.parametrize(("operation", "error"), FAULTS)
def test_files_that_fail_again_are_unavailable_while_residents_answer(
    both: Stack, fake: FakeVolume, client: IntentClient, operation: str, error: str
) -> None:
    model_id = a_cold_model(both, f"down-{operation}-{error}")
    before = generation(both, RESIDENT)
    fake.fail(model_id, operation, error, times=MANY)

    with pytest.raises(Unavailable, match="volume") as refusal:
        client.predict(model_id, DOCUMENT)

    assert MANY - fake.left() == 2, "one try, and one more"
    assert str(both.models) not in str(refusal.value)
    assert error not in str(refusal.value)
    assert client.predict(RESIDENT, DOCUMENT).label == "balance"
    assert generation(both, RESIDENT) == before
    assert resident(model_id, both) is None
    assert nothing_is_set_aside(both)

    fake.recover()
    assert client.predict(model_id, DOCUMENT).label == "balance"


@pytest.mark.parametrize("error", ["ESTALE", "EIO"])
def test_a_resident_whose_own_files_fail_serves_on_and_is_replaced_once_they_answer(
    both: Stack, fake: FakeVolume, client: IntentClient, tmp_path: Path, error: str
) -> None:
    model_id = a_cold_model(both, f"kept-{error}")
    assert client.predict(model_id, DOCUMENT).model_version == "1.0"
    before = generation(both, model_id)
    fake.fail(model_id, STAT, error, times=MANY)

    def serves_on(until: Callable[[], bool]) -> None:
        eventually(lambda: client.predict(model_id, DOCUMENT).model_version == "1.0" and until())

    serves_on(lambda: ("warning", "model files cannot be checked; the loaded copy serves on") in told(model_id, both))
    assert generation(both, model_id) == before

    # A new copy that cannot be read is not a bad copy: it is read once that is possible.
    fake.recover()
    fake.fail(model_id, READ, error, times=MANY)
    publish(second_version(tmp_path / "new"), both.models, parse_model_id(model_id), replace=True)
    serves_on(lambda: ("error", "replacement refused; the loaded copy serves on") in told(model_id, both))
    assert generation(both, model_id) == before

    fake.recover()
    eventually(lambda: client.predict(model_id, DOCUMENT).model_version == "2.0")
    assert nothing_is_set_aside(both)


@pytest.mark.parametrize("error", ["ESTALE", "EIO"])
def test_a_folder_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone(
    both: Stack, fake: FakeVolume, client: IntentClient, error: str
) -> None:
    model_id = a_cold_model(both, f"folder-{error}")
    before = generation(both, RESIDENT)
    for name in (model_id, RESIDENT):
        fake.fail(name, FOLDER, error, times=MANY)

    with pytest.raises(Unavailable, match="volume"):
        client.predict(model_id, DOCUMENT)
    for _ in range(10):
        assert client.predict(RESIDENT, DOCUMENT).label == "balance"

    assert generation(both, RESIDENT) == before
    fake.recover()
    assert client.predict(model_id, DOCUMENT).label == "balance"


def a_cold_model(both: Stack, model_id: str) -> str:
    shutil.copytree(SAMPLE, both.models / model_id)
    return model_id


def second_version(target: Path) -> Path:
    shutil.copytree(SAMPLE, target)
    manifest = json.loads((target / "manifest.json").read_text()) | {"ModelVersion": "2.0"}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def generation(both: Stack, model_id: str) -> int:
    """Return the generation of the model in memory, which identifies its load."""
    found = resident(model_id, both)
    assert found is not None
    return found.generation
