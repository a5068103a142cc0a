"""The prose of a file: comments and docstrings of Python, paragraphs of Markdown.

Prose stays on its line, and all else becomes empty, so that a finding has the line of the file.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import Final

_CODE: Final = re.compile(r"``[^`]+``|`[^`]+`|:[a-z]+:`[^`]+`|https?://\S+")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_MARKS_FOR_TOOLS: Final = re.compile(r"\A#\s*(?:noqa|type:|fmt:|pragma|!)")


def prose_of(path: Path) -> str:
    """Return the prose of a Python or Markdown file, line by line."""
    text = path.read_text()
    lines = _python(text) if path.suffix == ".py" else _markdown(text)
    return "\n".join(_CODE.sub("code", _LINK.sub(r"\1", line)) for line in lines)


def _python(text: str) -> list[str]:
    lines = text.splitlines()
    prose = [""] * (len(lines) + 1)
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                value = statement.value.value
                for offset, line in enumerate(value.splitlines() if isinstance(value, str) else ()):
                    prose[statement.lineno - 1 + offset] = line.strip()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _MARKS_FOR_TOOLS.match(token.string):
            is_after_code = bool(token.line[: token.start[1]].strip())
            prose[token.start[0] - 1] = token.string.lstrip("# ") + (";" if is_after_code else "")
    return prose


def _markdown(text: str) -> list[str]:
    prose: list[str] = []
    is_fenced = False
    for line in text.splitlines():
        is_fence = line.lstrip().startswith("```")
        is_fenced ^= is_fence
        # A heading is no sentence.
        is_code = is_fenced or is_fence or line.startswith(("    ", "#"))
        # Cells must not read as one sentence.
        line_of_text = re.sub(r"\A\s*(?:[-*#>]+|\d+\.)\s*", "", line).replace("|", ";")
        prose.append("" if is_code else line_of_text)
    return prose
