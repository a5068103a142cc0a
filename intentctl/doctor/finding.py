"""Findings of checks, worded for the team that owns the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Severity of a finding."""

    ERROR = "error"
    """The model does not serve, or its answers are wrong."""
    WARNING = "warning"
    """Something that most teams would not want, or that another system gets wrong."""
    NOTE = "note"
    """Something missing that would be good to have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check."""

    severity: Severity
    check: str
    """Name of the check, for scripts."""
    problem: str
    """Description of the problem, with its evidence."""
    advice: str
    """Advice on how to fix the problem."""

    def as_dict(self) -> dict[str, str]:
        """Return the fields by name."""
        return {"severity": self.severity, "check": self.check, "problem": self.problem, "advice": self.advice}


def error(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of severity ``ERROR``."""
    return Finding(Severity.ERROR, check, problem, advice)


def warning(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of severity ``WARNING``."""
    return Finding(Severity.WARNING, check, problem, advice)


def note(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of severity ``NOTE``."""
    return Finding(Severity.NOTE, check, problem, advice)


def by_share(share: float, *, wrong: float, odd: float) -> Severity:
    """Return the severity of a faulty ``share``: an error from ``wrong`` on, a warning from ``odd`` on, else a note."""
    if share >= wrong:
        return Severity.ERROR
    return Severity.WARNING if share >= odd else Severity.NOTE


def some_of(texts: list[str], most: int = 5) -> str:
    """Return the first few of ``texts``, quoted, and the number of remaining ones."""
    shown = ", ".join(_quoted(text) for text in texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
