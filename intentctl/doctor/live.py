"""Queries that a model receives while it serves, compared with the texts that it was validated on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from intentctl.doctor.finding import Finding, Severity, error, note, warning
from serving.domain.answer_counts import AnswerCounts
from serving.domain.drift import FEWEST_DOCUMENTS, Drift, Signal, Verdict, drift_of
from serving.domain.manifest import Manifest
from serving.wire.traffic_client import ModelTraffic

_MANY_UNKNOWN: Final = 0.50
_MANY_EMPTY: Final = 0.10
_NEARLY_ALL: Final = 0.90
_MANY_LABELS: Final = 5
_MANY_FALLBACKS: Final = 0.50

_SKEW: Final = {Verdict.SOME: Severity.WARNING, Verdict.STRONG: Severity.ERROR}
_CHANGE: Final = {Verdict.SOME: Severity.NOTE, Verdict.STRONG: Severity.WARNING}
_SEVERITIES: Final = {
    "unknown_tokens": _SKEW,
    "empty_documents": _SKEW,
    "confidence": _CHANGE,
    "labels": _CHANGE,
}
_MEANINGS: Final = {
    "unknown_tokens": (
        "the share of unknown tokens is {live:.1%}; in validation, it was {baseline:.1%}",
        (
            "check the queries for another language, tokenizer or preparation of the texts; otherwise, train "
            "on newer texts"
        ),
    ),
    "empty_documents": (
        "{live:.1%} of the documents have no token that the model knows; in validation, it was {baseline:.1%}",
        "check the queries for empty texts, another language or encoding",
    ),
    "confidence": (
        "scores are distributed differently from validation (population stability index {change:.2f})",
        "compare the histograms in --json; label some recent queries, and evaluate the model on them",
    ),
    "labels": (
        "the shares of the labels differ from validation (population stability index {change:.2f})",
        "this is often normal, as validation texts are usually balanced; see the shares in --json",
    ),
}


def drift_from_validation(manifest: Manifest | None, traffic: ModelTraffic | None) -> Drift | None:
    """Return how far the traffic is from the baseline; ``None`` unless both exist and belong to one copy."""
    if manifest is None or manifest.baseline is None or traffic is None or traffic.version != manifest.model_version:
        return None
    return drift_of(traffic.counts, manifest.baseline)


def findings_of(manifest: Manifest | None, traffic: ModelTraffic | None, drift: Drift | None) -> Iterator[Finding]:
    """Yield the findings about the traffic, by itself and compared with the baseline."""
    if traffic is None:
        yield note("no-traffic", "the predictor has not received queries for the model yet", "try again later")
        return
    if manifest is not None and traffic.version != manifest.model_version:
        yield warning(
            "other-version",
            f"the predictor serves version {traffic.version!r}, but the folder has "
            f"{manifest.model_version!r}: the counts are not compared with the folder's Baseline",
            "send the model a query, and try again; if nothing changes, the predictor refuses the new "
            "copy, and its log has the reason",
        )
    if traffic.counts.documents < FEWEST_DOCUMENTS:
        yield note(
            "few-documents",
            f"the predictor has counted {traffic.counts.documents} documents, too few for a verdict",
            f"try again after {FEWEST_DOCUMENTS} documents",
        )
        return
    yield from _by_itself(traffic.counts, manifest)
    for signal in drift.signals if drift is not None else ():
        yield from _of_signal(signal)


def _by_itself(counts: AnswerCounts, manifest: Manifest | None) -> Iterator[Finding]:
    unknown = counts.unknown_share
    if unknown >= _MANY_UNKNOWN:
        yield error(
            "mostly-unknown",
            f"{unknown:.0%} of the tokens in the queries are not in the vocabulary",
            "documents are tokenized differently from training, or are in another language: examine some of them",
        )
    empty = counts.empty_share
    if empty >= _MANY_EMPTY:
        yield warning(
            "many-empty",
            f"the model knows no token of {empty:.0%} of the documents, and gives them all the same answer",
            "check the queries for empty texts, another language or encoding",
        )
    label, count = max(counts.labels.items(), key=lambda item: item[1], default=("", 0))
    labels = len(manifest.labels) if manifest is not None else len(counts.labels)
    if labels >= _MANY_LABELS and count >= _NEARLY_ALL * counts.documents:
        yield warning(
            "nearly-one-answer",
            f"{count / counts.documents:.0%} of the answers are {label!r}, one of {labels} labels",
            "check whether the queries really mean that label, or whether the model returns it for unknown texts",
        )
    fallbacks = counts.fallback_share
    if fallbacks >= _MANY_FALLBACKS:
        yield warning(
            "many-fallbacks",
            f"{fallbacks:.0%} of the answers are below the threshold",
            "lower the threshold, or train the model on texts like the queries",
        )


def _of_signal(signal: Signal) -> Iterator[Finding]:
    severity = _SEVERITIES[signal.name].get(signal.verdict)
    if severity is not None:
        problem, advice = _MEANINGS[signal.name]
        shown = problem.format(live=signal.live_share, baseline=signal.baseline_share, change=signal.change)
        yield Finding(severity, f"drift-{signal.name.replace('_', '-')}", f"{signal.verdict} drift: {shown}", advice)
