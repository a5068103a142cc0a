from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import parse_model_id
from serving.volume.model_store import MODEL_FILES, ModelStore
from tests.conftest import ROOT, shared
from tests.samples import SAMPLES
from training.data import DataSet
from training.model import measure
from training.readers import read_data, with_test_file

MODELS = ROOT / "models"
STORE = ModelStore(MODELS)

pytestmark = pytest.mark.parametrize("name", SAMPLES)


def training_of(name: str) -> Any:
    manifest = STORE.read_manifest(parse_model_id(name))
    assert manifest.model_extra is not None
    return manifest.model_extra["Training"]


def data_of(name: str, labels: Sequence[str]) -> DataSet:
    if name == "banking77":
        folder = shared("datasets/banking77")
        return with_test_file(read_data(folder / "train.csv"), folder / "test.csv")
    return read_data(shared("datasets/clinc150/data_full.json")).keeping(labels)


@pytest.mark.slow
def test_a_sample_model_is_served_as_well_as_its_manifest_tells(name: str) -> None:
    loader = Loader(STORE, FileLimits())
    model_id = parse_model_id(name)
    model = loader.load(model_id, loader.fingerprint(model_id))
    data, told = data_of(name, model.labels), training_of(name)
    assert [source.sha256 for source in data.sources] == [source["sha256"] for source in told["data"]]
    figures = measure(model, data.test)
    # Sums in a different order may break a tie differently.
    assert figures.in_scope == pytest.approx(told["accuracy"]["test_in_scope"], abs=0.001)
    assert figures.out_of_scope_recall == (
        None if name == "banking77" else pytest.approx(told["accuracy"]["test_out_of_scope_recall"], abs=0.002)
    )


def test_a_sample_model_is_sealed_so_that_its_first_request_needs_no_rest(name: str) -> None:
    loader = Loader(STORE, FileLimits())
    model_id = parse_model_id(name)
    assert loader.load(model_id, loader.fingerprint(model_id), settled=False).model_id == name


def test_a_sample_model_is_small_and_has_no_other_files(name: str) -> None:
    files = list((MODELS / name).iterdir())
    assert sorted(path.name for path in files) == sorted(MODEL_FILES)
    assert sum(path.stat().st_size for path in files) <= 2_000_000


def test_the_project_s_read_me_tells_how_many_bytes_it_has(name: str) -> None:
    size = sum(path.stat().st_size for path in (MODELS / name).iterdir())
    (row,) = (line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"│ {name} "))
    assert row.strip("│").split("│")[5].strip() == str(size)


def test_the_read_me_tells_the_figures_of_the_manifest(name: str) -> None:
    accuracy = training_of(name)["accuracy"]
    (row,) = (line for line in (MODELS / "README.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    if name == "banking77":
        # The data set has no rows out of scope, so all rows are rows in scope.
        del accuracy["test_with_out_of_scope"]
    told = [f"{100 * figure:.2f} %" for figure in accuracy.values()]
    assert [cell for cell in cells[3:] if cell] == told
