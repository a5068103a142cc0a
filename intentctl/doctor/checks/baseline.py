"""Checks of the baseline: the answers to the validation texts show skew before the first request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from intentctl.doctor.finding import Finding, error, note, some_of, warning
from serving.domain.drift import FEWEST_VALIDATED
from serving.domain.manifest import Manifest

_MANY_UNKNOWN: Final = 0.30
_MANY_EMPTY: Final = 0.05
_MANY_FALLBACKS: Final = 0.50


def no_baseline(manifest: Manifest) -> Iterator[Finding]:
    """Report a missing or small baseline, because later queries cannot be compared with it."""
    if manifest.baseline is None:
        if not manifest.is_elsewhere:
            yield note(
                "no-baseline",
                "the manifest has no Baseline, so drift cannot be detected",
                "train the model with `intentctl train`, which writes one",
            )
    elif manifest.baseline.documents < FEWEST_VALIDATED:
        yield note(
            "no-baseline",
            f"the Baseline is of {manifest.baseline.documents} documents, too few to distinguish drift from chance",
            f"validate the model on at least {FEWEST_VALIDATED} documents",
        )


def other_labels(manifest: Manifest) -> Iterator[Finding]:
    """Report a baseline that belongs to another model."""
    strange = [label for label in manifest.baseline.labels if label not in manifest.labels] if manifest.baseline else []
    if strange:
        yield error(
            "baseline-of-other-labels",
            f"the Baseline counts labels that the model does not have: {some_of(strange)}",
            "the Baseline is of another model: use the Baseline from the training of this model",
        )


def sums_that_differ(manifest: Manifest) -> Iterator[Finding]:
    """Report sums that differ, because each answer has one confidence and one label."""
    baseline = manifest.baseline
    if baseline is not None and not baseline.documents == sum(baseline.confidence) == sum(baseline.labels.values()):
        yield error(
            "baseline-sums",
            f"the Baseline has {baseline.documents} documents, {sum(baseline.confidence)} scores and "
            f"{sum(baseline.labels.values())} labels, which should be the same number",
            "write it again, as `intentctl train` does",
        )


def unknown_tokens(manifest: Manifest) -> Iterator[Finding]:
    """Report many unknown tokens, because the model should know texts that resemble its training texts."""
    baseline = manifest.baseline
    share = baseline.unknown_share if baseline else 0.0
    if share >= _MANY_UNKNOWN and _is_of_one_tokenizer(manifest):
        yield note(
            "baseline-unknown-tokens",
            f"{share:.0%} of the tokens of the validation texts are not in the vocabulary, which was made of few texts",
            "train on more texts",
        )
    elif share >= _MANY_UNKNOWN:
        yield error(
            "baseline-unknown-tokens",
            f"{share:.0%} of the tokens of the validation texts are not in the vocabulary",
            "the vocabulary was made with another tokenizer or from other texts: use the same for both, "
            "and train again",
        )


def empty_documents(manifest: Manifest) -> Iterator[Finding]:
    """Report many documents without a known token, all of which get the same answer."""
    baseline = manifest.baseline
    share = baseline.empty_share if baseline else 0.0
    if share >= _MANY_EMPTY:
        # With few texts and no n-grams, few words are to be expected; with another tokenizer, it is a fault.
        finding = note if _is_of_one_tokenizer(manifest) else warning
        yield finding(
            "baseline-empty-documents",
            f"the model knows no token of {share:.0%} of its validation texts, and gives them all the same answer",
            "train on more texts, or with n-grams of characters",
        )


def mostly_fallbacks(manifest: Manifest) -> Iterator[Finding]:
    """Report a threshold that turns most answers into fallbacks."""
    baseline = manifest.baseline
    share = baseline.fallback_share if baseline else 0.0
    if share >= _MANY_FALLBACKS:
        yield warning(
            "baseline-fallbacks",
            f"{share:.0%} of the validation texts were answered with the fallback label",
            "lower Confidence.threshold, or train a better model",
        )


def _is_of_one_tokenizer(manifest: Manifest) -> bool:
    """Return whether the manifest shows that `intentctl train` made the vocabulary with the tokenizer that serves."""
    match (manifest.model_extra or {}).get("Training"):
        case {"recipe": {"tokenizer": str() as tokenizer}}:
            return tokenizer == manifest.tokenizer
    return False
