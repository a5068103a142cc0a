"""Checks of the files and the manifest: sizes, sums, and common mistakes in manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from intentctl.doctor.finding import Finding, error, note, warning
from intentctl.doctor.subject import Folder
from serving.domain.manifest import Manifest
from serving.volume.model_store import VOCABULARY_FILE, WEIGHTS_FILE

LARGEST_BYTES: Final = 8_000_000
"""Largest total size of a model's files, in bytes: thousands of such models must fit into one process."""


def classes_turned_around(folder: Folder) -> Iterator[Finding]:
    """Report a manifest that maps labels to indexes, as training code does, instead of indexes to labels."""
    classes = _classes(folder)
    indexes = {value for value in map(_as_index, classes.values()) if value is not None}
    if classes and len(indexes) == len(classes) and not any(key.isdecimal() for key in classes):
        yield error(
            "classes-turned-around",
            f"classes maps labels to indexes ({next(iter(classes))!r} to {next(iter(classes.values()))!r})",
            'map indexes to labels instead: {"0": "<label>", ...}',
        )


def classes_from_one(folder: Folder) -> Iterator[Finding]:
    """Report a manifest that counts outputs from one."""
    classes = _classes(folder)
    if classes and set(classes) == {str(number) for number in range(1, len(classes) + 1)}:
        yield error("classes-from-one", "classes counts its outputs from 1", "count from 0, like the network")


def too_large(folder: Folder) -> Iterator[Finding]:
    """Report files that are large for an intent model."""
    size = sum(folder.sizes.values())
    if size > LARGEST_BYTES:
        largest = max(folder.sizes, key=lambda name: folder.sizes[name])
        yield warning(
            "too-large",
            f"the model's files have {size / 1e6:.1f} MB together, most of it in {largest}; "
            f"{LARGEST_BYTES / 1e6:.0f} MB are enough for intents, and larger models evict others from memory",
            "train the model with fewer tokens, n-grams or dimensions",
        )


def no_sums(manifest: Manifest) -> Iterator[Finding]:
    """Report missing sums, without which a damaged file cannot be distinguished from an intact one."""
    missing = [name for name in (WEIGHTS_FILE, VOCABULARY_FILE) if name not in manifest.files]
    if missing and not manifest.is_elsewhere:
        yield note(
            "no-sums",
            f"the manifest has no checksum of {' and '.join(missing)}, so damage to these files cannot be detected",
            "publish the model with `intentctl publish`, which writes the checksums",
        )


def no_version(manifest: Manifest) -> Iterator[Finding]:
    """Report a missing version, without which answers do not show which copy of the model gave them."""
    if not manifest.model_version:
        yield note(
            "no-version",
            "the manifest has no ModelVersion, so answers have no version",
            "give each copy its own version",
        )


def _classes(folder: Folder) -> Mapping[str, object]:
    classes = folder.document.get("classes") if folder.document else None
    return classes if isinstance(classes, dict) else {}


def _as_index(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
