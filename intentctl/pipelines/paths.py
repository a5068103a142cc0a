"""The way of a document through a pipeline, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from serving.domain.prediction import Onward, PathStep

_MILLISECONDS: Final = 1e3
_NEXT: Final = " > "


def steps_of(path: Sequence[PathStep]) -> list[str]:
    """Return each step with its label, score and milliseconds, and why the document went on."""
    return [_step_text(step) for step in path]


def path_text(path: Sequence[PathStep]) -> str:
    """Return all steps in one line; empty without steps."""
    return _NEXT.join(steps_of(path))


def _step_text(step: PathStep) -> str:
    told = f"{step.label} {step.score:.3f}" if step.label else f"{step.code.name} of {_models_of(step)}"
    if step.path:
        told += f" [{path_text(step.path)}]"
    if step.votes:
        told += f" [{', '.join(_votes_of(step))}]"
    if step.fallback is not None:
        best, threshold = step.fallback
        told += f" instead of {best.label} ({best.score:.3f} < {threshold:g})"
    reason = "" if step.onward is Onward.ANSWERED else f", {step.onward}"
    return f"{step.name}: {told}{reason} ({step.seconds * _MILLISECONDS:.1f} ms)"


def _models_of(step: PathStep) -> str:
    return ", ".join(model.model_id for model in step.models)


def _votes_of(step: PathStep) -> Iterator[str]:
    for model, vote in zip(step.models, step.votes, strict=True):
        yield f"{model.model_id}: {vote.label} {vote.score:.3f}"
