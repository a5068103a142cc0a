"""The rules of prose that can be checked: some of proselint's, and ours.

The five rules are in CONTRIBUTING.md: the subject first, and the field's terms.
"""

from __future__ import annotations

from typing import Any, Final

from proselint.checks import __register__ as checks_of_proselint
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, types
from proselint.registry.checks.engine import Fancy, RegexOptions
from proselint.tools import LintFile

_EXACT: Final = Fancy(RegexOptions(case_insensitive=False))
_START: Final = r"(?:(?<=\A\n)|(?<=\n\n)|(?<=[.!?] )|(?<=[.!?]\n))"

TERMS: Final = {
    "come to its deadline": "time out",
    "comes to its deadline": "times out",
    "come to their deadline": "time out",
    "let in": "admit",
    "lets in": "admits",
    "let go of": "release",
    "lets go of": "releases",
    "nobody": "no caller, no worker, ...",
    "somebody": "a caller, an operator, ...",
    "by now": "already",
    "such as have": "that have",
    "is told": "is notified, receives",
    "are told": "are notified, receive",
    "stands twice": "appears twice",
    "say so with": "confirm with",
    "gives no sign of life": "does not respond",
}
"""Phrases, each with what to write instead."""

OURS: Final = (
    Check(
        types.ExistenceSimple(_START + r"(?:Of|Who|Whoever|Whom|Whose)\s[a-z]"),
        _EXACT,
        "intent.subject",
        "A sentence begins with its subject.",
    ),
    Check(
        types.ExistenceSimple(_START + r"What\s[a-z][^.?]*\."),
        _EXACT,
        "intent.what",
        "A sentence begins with its subject: name what it is.",
    ),
    Check(types.PreferredFormsSimple(TERMS), path="intent.terms", message="Write '{}' instead of '{}'."),
)
PROSELINTS: Final = (
    "archaism",
    "cliches",
    "lexical_illusions",
    "malapropisms",
    "mixed_metaphors",
    "nonwords",
    "oxymorons",
    "redundancy",
    "uncomparables",
)
"""Names of proselint's own checks that are on."""

_MOST: Final = 1000


def findings(name: str, prose: str) -> list[tuple[int, str]]:
    """Return the line and the message of each finding in ``prose``."""
    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many((*checks_of_proselint, *OURS))
    enabled = dict.fromkeys(("intent", *PROSELINTS), True)
    config: Any = {"max_errors": _MOST, "checks": enabled}
    found = LintFile(name, prose or " ").lint(config)
    # Words that two paragraphs have in common are not repetitions.
    within = [result for result in found if "\n\n" not in result.check_result.message]
    return [(result.pos[0], " ".join(result.check_result.message.split())) for result in within]
