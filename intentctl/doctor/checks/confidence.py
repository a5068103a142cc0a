"""Checks of the calibration of scores, and of the fallback for low scores."""

from __future__ import annotations

from collections.abc import Iterator

from intentctl.doctor.finding import Finding, note, warning
from serving.domain.manifest import Manifest


def no_temperature(manifest: Manifest) -> Iterator[Finding]:
    """Report a missing temperature: scores are the softmax of unscaled logits, which is usually overconfident."""
    if "temperature" not in manifest.confidence.model_fields_set and not manifest.is_elsewhere:
        yield note(
            "no-temperature",
            "the manifest has no temperature, so scores are not calibrated probabilities",
            "train the model with `intentctl train`, which fits one on validation texts",
        )


def no_threshold(manifest: Manifest) -> Iterator[Finding]:
    """Report a missing threshold: every document gets an intent, however far it is from all of them."""
    if not manifest.confidence.threshold and not manifest.is_elsewhere:
        yield note(
            "no-threshold",
            "the manifest has no threshold: every document is answered with an intent, whatever its subject",
            "set Confidence.threshold in the manifest (`intentctl train --threshold`), "
            "or send a threshold with each query",
        )


def threshold_without_effect(manifest: Manifest) -> Iterator[Finding]:
    """Report a threshold without effect: the best of n scores that add up to 1 is at least 1/n."""
    threshold, labels = manifest.confidence.threshold, len(manifest.labels)
    if labels and 0.0 < threshold <= 1.0 / labels:
        yield warning(
            "threshold-without-effect",
            f"the threshold is {threshold:g}, but the best of {labels} labels always scores at least "
            f"{1.0 / labels:.3g}",
            "set a higher threshold",
        )


def unknown_fallback(manifest: Manifest) -> Iterator[Finding]:
    """Report a fallback label that is not one of the model's labels, or only resembles the one that was meant."""
    confidence = manifest.confidence
    fallback = confidence.fallback
    if fallback in manifest.labels:
        return
    alike = [label for label in manifest.labels if label.strip().casefold() == fallback.strip().casefold()]
    if alike:
        yield warning(
            "unknown-fallback",
            f"the fallback label is {fallback!r}, but the model has {alike[0]!r}: answers will contain both",
            "write Confidence.fallback like the model's label",
        )
    elif confidence.threshold:
        yield note(
            "unknown-fallback",
            f"the fallback label {fallback!r} is not a label of the model, so its score is always 0",
            "make sure that clients expect this label, or name one of the model's labels "
            "(`intentctl train --fallback-label`)",
        )
