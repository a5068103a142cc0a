"""The way of a document through a pipeline, as text."""

from __future__ import annotations

from collections.abc import Sequence
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
    told = f"{step.label} {step.score:.3f}" if step.label else step.code.name
    inner = f" [{path_text(step.path)}]" if step.path else ""
    reason = "" if step.onward is Onward.ANSWERED else f", {step.onward}"
    return f"{step.name}: {told}{inner}{reason} ({step.seconds * _MILLISECONDS:.1f} ms)"
