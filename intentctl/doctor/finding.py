"""What a check found, in words for the team whose model it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """The model does not serve, or its answers are wrong."""
    WARNING = "warning"
    """Something that most teams would not want, or that another system gets wrong."""
    NOTE = "note"
    """Something missing that would be good to have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found."""

    severity: Severity
    check: str
    """The name of the check, for scripts."""
    problem: str
    """What is wrong, with its evidence."""
    advice: str
    """What to do."""

    def as_dict(self) -> dict[str, str]:
        """Return its fields by name."""
        return {"severity": self.severity, "check": self.check, "problem": self.problem, "advice": self.advice}


def error(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of that severity."""
    return Finding(Severity.ERROR, check, problem, advice)


def warning(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of that severity."""
    return Finding(Severity.WARNING, check, problem, advice)


def note(check: str, problem: str, advice: str) -> Finding:
    """Return a finding of that severity."""
    return Finding(Severity.NOTE, check, problem, advice)


def by_share(share: float, *, wrong: float, odd: float) -> Severity:
    """Return how bad it is that ``share`` of something is wrong: an error from ``wrong``, a warning from ``odd`` on."""
    if share >= wrong:
        return Severity.ERROR
    return Severity.WARNING if share >= odd else Severity.NOTE


def some_of(texts: list[str], most: int = 5) -> str:
    """Return the first few of ``texts``, quoted, and how many more there are."""
    told = ", ".join(_quoted(text) for text in texts[:most])
    return told if len(texts) <= most else f"{told} and {len(texts) - most} more"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
