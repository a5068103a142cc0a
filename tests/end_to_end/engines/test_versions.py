"""Versioned names whose models are in foreign engines: real engines, behind one frontend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.client import IntentClient, Prediction, Query
from serving.domain.releases.release import Release
from tests.end_to_end.engines.engines import (
    DOCUMENT,
    LABEL,
    SAMPLE,
    Engine,
    Fleet,
    fleet,
    torchserve_engine,
    triton_engine,
)

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.xdist_group("versions_at_engines"),  # one worker starts the shared engines
    pytest.mark.timeout(1800),  # the first run installs the peers' environments
]


def with_torchserve(models: Path, folder: Path) -> Engine:
    """Return TorchServe with two versions of ``intent``, each in its own archive."""
    engine = torchserve_engine(models, folder)
    for version in ("v1", "v2"):
        put(models, "intent", version, Algorithm=engine.algorithm, ModelName="intent", ModelVersion="1.0")
        shutil.copy(folder / "store" / "model-clinc150-torch.mar", folder / "store" / f"model-intent@{version}.mar")
    (models / "intent" / "release.json").write_text(Release(revision=1, stable="v1").to_json())
    return engine


def with_triton(models: Path, folder: Path) -> Engine:
    """Return Triton with its version 1 of ``labels``, which the manifest does not name."""
    engine = triton_engine(models, folder)
    put(models, "labels", "1", Algorithm=engine.algorithm, OpenInference={"label": "label", "score": "score"})
    put(models, "labels", "7", Algorithm=engine.algorithm, OpenInference={"label": "label", "score": "score"})
    return replace(engine, models=(*engine.models, "labels@1"))


def put(models: Path, name: str, version: str, **keys: object) -> None:
    sample = json.loads((models / SAMPLE / "manifest.json").read_text())
    (models / name / version).mkdir(parents=True)
    manifest = {"classes": sample["classes"]} | keys
    (models / name / version / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("versions"), {"torchserve": with_torchserve, "triton": with_triton}) as running:
        yield running


def test_versions_are_archives_of_their_own_at_torchserve(engines: Fleet, client: IntentClient) -> None:
    if "torchserve" in engines.missing:
        pytest.skip(engines.missing["torchserve"])
    names = ("intent@v2", "intent@v1", "intent")
    answers = [client.predict(name, DOCUMENT) for name in names]
    assert [(answer.label, answer.model_id) for answer in answers] == [
        (LABEL, "intent@v2"), (LABEL, "intent@v1"), (LABEL, "intent@v1"),
    ]  # fmt: skip
    batch = client.predict_batch([Query(name, DOCUMENT) for name in names])
    assert [answer.model_id for answer in batch if isinstance(answer, Prediction)] == [
        "intent@v2", "intent@v1", "intent@v1",
    ]  # fmt: skip


def test_a_version_is_asked_by_its_name_at_triton(engines: Fleet, client: IntentClient) -> None:
    if "triton" in engines.missing:
        pytest.skip(engines.missing["triton"])
    answer = client.predict("labels@1", DOCUMENT)
    assert (answer.label, answer.model_id) == (LABEL, "labels@1")
    (refused,) = client.predict_batch([Query("labels@7", DOCUMENT)])
    assert "no model of this name and version" in str(refused)
