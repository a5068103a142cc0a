"""The blocks of the README: what a reader types, and what the README prints as the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED: Final = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
_PROMPT: Final = "$ "
# Lines of a here-document and after a backslash have no prompt, so that readers can paste them.
_HERE_DOCUMENT: Final = re.compile(r"<<'?(\w+)'?$")


class UnknownBlock(Exception):
    """A block that cannot be run: it is neither a session of a terminal nor a program with its output."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and what it prints."""

    text: str
    """The command, with all of its lines."""
    output: str
    """Everything that the command prints; of a service, the beginning."""


@dataclass(frozen=True, slots=True)
class Session:
    """Commands in a terminal."""

    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Program:
    """A program in Python, and what it prints."""

    source: str
    output: str


def blocks_of(markdown: str) -> Sequence[Session | Program]:
    """Return all blocks, in order.

    Raises:
        UnknownBlock: a block can be run in no way.
    """
    left_over = _INDENTED.search(_FENCED.sub("", markdown))
    if left_over is not None:
        raise UnknownBlock(f"indented block, which names no prompt: {left_over[0]}")
    found: list[Session | Program] = []
    fenced = [(match[1], match[2]) for match in _FENCED.finditer(markdown)]
    while fenced:
        kind, text = fenced.pop(0)
        match kind:
            case "console":
                found.append(_session(text))
            case "python" if fenced and fenced[0][0] == "text":
                found.append(Program(text, fenced.pop(0)[1]))
            case _:
                raise UnknownBlock(f"{kind or 'no'} block: {text}")
    return found


def _session(text: str) -> Session:
    commands: list[Command] = []
    typed: list[str] = []
    printed: list[str] = []
    for line in text.splitlines():
        if line.startswith(_PROMPT):
            _add(commands, typed, printed)
            typed, printed = [line.removeprefix(_PROMPT)], []
        elif not typed:
            raise UnknownBlock(f"the session does not begin with a command: {line}")
        elif not printed and _is_open(typed):
            typed.append(line)
        else:
            printed.append(line)
    _add(commands, typed, printed)
    return Session(commands)


def _is_open(typed: Sequence[str]) -> bool:
    """Return whether the next line belongs to the command as well."""
    document = _HERE_DOCUMENT.search(typed[0])
    return typed[-1].endswith("\\") or (document is not None and document[1] not in typed[1:])


def _add(commands: list[Command], typed: Sequence[str], printed: Sequence[str]) -> None:
    if typed:
        commands.append(Command("\n".join(typed), "".join(f"{line}\n" for line in printed)))
