"""The way of a document through a pipeline, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from serving.domain.prediction import Onward, PathStep

_MILLISECONDS: Final = 1e3
_NEXT: Final = " > "


def path_text(path: Sequence[PathStep]) -> str:
    """Return the steps with labels, scores and milliseconds, and why the document went on; empty without steps."""
    return _NEXT.join(map(_step_text, path))


def _step_text(step: PathStep) -> str:
    told = f"{step.label} {step.score:.3f}" if step.label else step.code.name
    inner = f" [{path_text(step.path)}]" if step.path else ""
    reason = "" if step.onward is Onward.ANSWERED else f", {step.onward}"
    return f"{step.name}: {told}{inner}{reason} ({step.seconds * _MILLISECONDS:.1f} ms)"
