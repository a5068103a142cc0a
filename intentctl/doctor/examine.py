"""Examination of a model's folder by all checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intentctl.doctor.checks import OF_FOLDERS, OF_MANIFESTS, OF_MODELS
from intentctl.doctor.finding import Finding, error, note
from intentctl.doctor.subject import Folder, Subject
from predictor.model.files.tensors import read_state_dict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.layers import Layers
from predictor.model.loader import FileLimits, Loader
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import InvalidManifest, ModelIncomplete, ModelNotFound, ServingError
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId
from serving.domain.strict_json import NotStrictJson, parse_json
from serving.volume.model_store import (
    MANIFEST_FILE,
    MODEL_FILES,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Fingerprint,
    ModelStore,
)
from serving.volume.pipelines import pipeline_faults


@dataclass(frozen=True, slots=True)
class Examination:
    """Findings, and the manifest that was examined, if it can be parsed."""

    findings: tuple[Finding, ...]
    manifest: Manifest | None


def examine(root: Path, model_id: ModelId) -> Examination:
    """Return all findings about the model's folder below ``root``.

    Raises:
        ModelNotFound: there is no such folder.
        Unavailable: the volume does not answer.
    """
    store = ModelStore(root)
    fingerprint = store.fingerprint(model_id)
    folder = _folder(store, model_id, fingerprint)
    findings = [finding for check in OF_FOLDERS for finding in check(folder)]
    manifest = folder.manifest
    if manifest is not None:
        findings += [finding for check in OF_MANIFESTS for finding in check(manifest)]
    if folder.is_pipeline:
        findings += _of_pipeline(store, model_id)
        return Examination(tuple(findings), manifest)
    if manifest is not None and manifest.is_elsewhere:
        findings.append(_elsewhere())
        return Examination(tuple(findings), manifest)
    try:
        subject = _subject(store, model_id, fingerprint)
    except ModelNotFound:
        raise
    except ServingError as refused:
        findings.append(_unloadable(refused))
    else:
        findings += [finding for check in OF_MODELS for finding in check(subject)]
    return Examination(tuple(findings), manifest)


def _folder(store: ModelStore, model_id: ModelId, fingerprint: Fingerprint) -> Folder:
    sizes = {name: file.size for name, file in zip(MODEL_FILES, fingerprint.files, strict=True) if file is not None}
    try:
        data = store.read(model_id, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    except ModelIncomplete:
        return Folder(model_id, sizes, None, None)
    document: Any = None
    manifest = None
    # The loader reports what is wrong with either.
    with contextlib.suppress(NotStrictJson):
        document = parse_json(data)
    with contextlib.suppress(InvalidManifest):
        manifest = Manifest.parse(data)
    return Folder(model_id, sizes, document if isinstance(document, dict) else None, manifest)


def _subject(store: ModelStore, model_id: ModelId, fingerprint: Fingerprint) -> Subject:
    loader, limits = Loader(store, FileLimits()), FileLimits()
    # Load as the predictor does, with all its checks.
    model = loader.load(model_id, loader.fingerprint(model_id))
    most = {MANIFEST_FILE: MAX_MANIFEST_BYTES, WEIGHTS_FILE: limits.weights, VOCABULARY_FILE: limits.vocabulary}
    files = store.read_copy(model_id, fingerprint, most)
    arrays = read_state_dict(files[WEIGHTS_FILE])
    return Subject(
        Manifest.parse(files[MANIFEST_FILE]),
        read_vocabulary(files[VOCABULARY_FILE]),
        Layers.of(arrays),
        FoldedNetwork.from_arrays(arrays),
        model,
    )


def _unloadable(refused: ServingError) -> Finding:
    problem, _, advice = str(refused).rpartition("; ")
    if isinstance(refused, InvalidManifest) or not problem:
        problem, advice = str(refused), "correct the manifest, and publish the model again"
    return error("cannot-be-loaded", f"the predictor cannot serve the model: {problem}", advice)


def _of_pipeline(store: ModelStore, model_id: ModelId) -> Iterator[Finding]:
    """Yield a finding for each fault of a pipeline, and a note that nothing else is examined."""
    advice = "correct the steps or the models that they ask, and publish the pipeline again"
    try:
        pipeline = store.read_manifest(model_id).pipeline
        faults = [] if pipeline is None else pipeline_faults(store, model_id, pipeline)
    except InvalidManifest as refused:
        faults = [str(refused)]
    yield from (error("wrong-step", fault, advice) for fault in faults)
    yield note(
        "pipeline",
        "the model is a pipeline, which has no weights, so only its steps are examined here",
        "examine the models that the steps ask",
    )


def _elsewhere() -> Finding:
    return note(
        "elsewhere",
        "the model is at a server of the Open Inference Protocol, so its files cannot be examined here",
        "examine the model there",
    )
