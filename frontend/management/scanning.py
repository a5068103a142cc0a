"""Snapshots of the volume, and the differences between two of them. Everything here blocks on the volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from serving.domain.errors import ModelNotFound, ServingError, VolumeUnavailable
from serving.domain.management import ModelChange, ReleaseState
from serving.domain.model_id import ModelId, versioned
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.domain.releases.views import view_of
from serving.volume.file_identity import FileIdentity
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, Fingerprint, ModelStore

_NO_VERSIONS: Final = frozenset((*MODEL_FILES, RELEASE_FILE))
_MANIFEST: Final = MODEL_FILES.index(MANIFEST_FILE)


@dataclass(frozen=True, slots=True)
class Seen:
    """Snapshot of one name."""

    models: Mapping[ModelId, Fingerprint] = field(default_factory=dict)
    """Files of the model, or of each version."""
    release_file: FileIdentity | None = None
    release: Release | None = None


NOTHING: Final = Seen()


def scan(store: ModelStore, former: Mapping[ModelId, Seen]) -> dict[ModelId, Seen]:
    """Return a snapshot of each name.

    A name that cannot be read keeps its state from ``former``; its fault is reported elsewhere.

    Raises:
        VolumeUnavailable: the volume does not respond.
    """
    found: dict[ModelId, Seen] = {}
    for name in store.folders():
        known = former.get(name, NOTHING)
        try:
            seen = _seen(store, name, known)
        except VolumeUnavailable:
            raise
        except ServingError:
            seen = known
        if seen.models or seen.release_file:
            found[name] = seen
    return found


def differences(former: Mapping[ModelId, Seen], present: Mapping[ModelId, Seen]) -> Iterator[ModelChange]:
    """Yield the changes between two snapshots."""
    for name in former.keys() | present.keys():
        before, after = former.get(name, NOTHING), present.get(name, NOTHING)
        if before is after:
            continue
        for model_id in before.models.keys() - after.models.keys():
            yield ModelChange("removed", model_id)
        for model_id, files in after.models.items():
            known = before.models.get(model_id)
            if known is None:
                yield ModelChange("added", model_id)
            elif known != files:
                yield ModelChange("changed", model_id)
        if before.release != after.release:
            yield ModelChange("released", name, ReleaseState(name, view_of(after.release)))


def everything(present: Mapping[ModelId, Seen]) -> Iterator[ModelChange]:
    """Yield a whole snapshot by name: each model as added, each release as released."""
    for name, seen in sorted(present.items()):
        for model_id in sorted(seen.models):
            yield ModelChange("added", model_id)
        if seen.release is not None:
            yield ModelChange("released", name, ReleaseState(name, view_of(seen.release)))


def _seen(store: ModelStore, name: ModelId, known: Seen) -> Seen:
    names = store.folders(name)
    own = [name] if MANIFEST_FILE in names else []
    versions = [versioned(name, each) for each in names if each not in _NO_VERSIONS]
    models = dict(_with_manifests(store, [*own, *versions]))
    file = store.release_file(name) if RELEASE_FILE in names else None
    release = known.release
    if file != known.release_file:
        release = None if file is None else store.read_release(name)
    seen = Seen(models, file, release)
    return known if seen == known else seen


def _with_manifests(store: ModelStore, model_ids: list[ModelId]) -> Iterator[tuple[ModelId, Fingerprint]]:
    for model_id in model_ids:
        try:
            files = store.fingerprint(model_id)
        except ModelNotFound:
            continue
        if files.files[_MANIFEST] is not None:
            yield model_id, files
