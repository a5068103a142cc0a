"""The prose of a file: comments, docstrings and messages of Python, paragraphs of Markdown.

Prose stays on its line, and all else becomes empty, so that a finding has the line of the file.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CODE: Final = re.compile(r"``[^`]+``|`[^`]+`|:[a-z]+:`[^`]+`|https?://\S+")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_MARKS_FOR_TOOLS: Final = re.compile(r"\A#\s*(?:noqa|type:|fmt:|pragma|!)")
_SPEAKING: Final = frozenset(
    {"debug", "info", "warning", "error", "exception", "note", "fail", "add_argument", "exit", "print"}
)
"""Functions whose arguments people read. All classes are added: errors, metrics, options and columns of tables."""


def prose_of(path: Path, *, with_messages: bool = False) -> str:
    """Return the prose of a Python or Markdown file, line by line.

    Args:
        path: the file.
        with_messages: whether messages of errors, logs, metrics and options are prose too.
    """
    text = path.read_text()
    lines = _python(text, with_messages=with_messages) if path.suffix == ".py" else _markdown(text)
    return "\n".join(_CODE.sub("code", _LINK.sub(r"\1", line)) for line in lines)


def _python(text: str, *, with_messages: bool) -> list[str]:
    lines = text.splitlines()
    prose = [""] * (len(lines) + 1)
    tree = ast.parse(text)
    for line, message in _messages(tree) if with_messages else ():
        prose[line - 1] += f"{message}; "
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                value = statement.value.value
                for offset, text_line in enumerate(value.splitlines() if isinstance(value, str) else ()):
                    prose[statement.lineno - 1 + offset] = text_line.strip()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not _MARKS_FOR_TOOLS.match(token.string):
            is_after_code = bool(token.line[: token.start[1]].strip())
            prose[token.start[0] - 1] += token.string.lstrip("# ") + (";" if is_after_code else "")
    return prose


def _messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each sentence that is an argument of a class or of a speaking function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in _SPEAKING or name[:1].isupper():
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    message = _sentence(argument)
                    if " " in message:
                        yield argument.lineno, message


def _sentence(node: ast.expr) -> str:
    """Return the text of a literal, with code in place of its expressions; empty for anything else."""
    if isinstance(node, ast.Constant):
        return " ".join(node.value.split()) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        # Two expressions in a row are not a repeated word.
        parts = (
            str(part.value) if isinstance(part, ast.Constant) else f"value{number}"
            for number, part in enumerate(node.values)
        )
        return " ".join("".join(parts).split())
    return ""


def _markdown(text: str) -> list[str]:
    prose: list[str] = []
    is_fenced = False
    for line in text.splitlines():
        is_fence = line.lstrip().startswith("```")
        is_fenced ^= is_fence
        # A heading is not a sentence.
        is_code = is_fenced or is_fence or line.startswith(("    ", "#"))
        # Cells must not read as one sentence.
        line_of_text = re.sub(r"\A\s*(?:[-*#>]+|\d+\.)\s*", "", line).replace("|", ";")
        prose.append("" if is_code else line_of_text)
    return prose
