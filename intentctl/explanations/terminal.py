"""An explanation in colour on a terminal, and as plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from intentctl.explanations.account import Account
from intentctl.explanations.colours import colour_of, hexadecimal
from intentctl.explanations.marked import pieces_of, shown_token
from intentctl.explanations.shares import strength
from intentctl.output import Column, console, print_line, print_table
from serving.telemetry.foreign_text import shown

UNKNOWN_MARK = "~"
"""Mark around words that the vocabulary lacks, with and without colours."""

_COLUMNS = (
    Column("token"),
    Column("made of"),
    Column("times", right=True),
    Column("adds", right=True, style="bold"),
)


def print_account(account: Account, document: str, top: int) -> None:
    """Print the document, its strongest tokens, and how they make up the score.

    Args:
        account: account of one label.
        document: the document as it was sent.
        top: number of tokens to list one by one.
    """
    console.print(Text(shown(account.label), style="bold green"), highlight=False, soft_wrap=True)
    console.print(marked(account, document), highlight=False, soft_wrap=True)
    print_table(_COLUMNS, rows_of(account, top))
    print_line(account.sentence)


def marked(account: Account, document: str) -> Text:
    """Return the document, with each word on the colour of what it adds."""
    words = account.words
    strengths = strength(words)
    text = Text()
    for piece in pieces_of(document, [word.text for word in words]):
        if piece.word is None:
            text.append(shown(piece.text))
            continue
        word = words[piece.word]
        colour = colour_of(strengths[piece.word])
        style = Style(
            color="#000000" if colour else None,
            bgcolor=hexadecimal(colour) if colour else None,
            underline=True if word.is_unknown else None,
        )
        mark = UNKNOWN_MARK if word.is_unknown else ""
        text.append(f"{mark}{shown(piece.text)}{mark}", style)
    return text


def rows_of(account: Account, top: int) -> list[Sequence[str]]:
    """Return the strongest tokens, all others together, the bias and the logit."""
    rows: list[Sequence[str]] = [
        (
            f"{UNKNOWN_MARK}{shown_token(token.text)}{UNKNOWN_MARK}" if token.is_unknown else shown_token(token.text),
            token.kind,
            f"{token.times}",
            f"{token.adds:+z.3f}",
        )
        for token in account.tokens[:top]
    ]
    others = account.tokens[top:]
    if others:
        adds = sum(token.adds for token in others)
        rows.append((f"{len(others)} others", "", f"{sum(token.times for token in others)}", f"{adds:+z.3f}"))
    return [*rows, ("bias", "", "", f"{account.bias:+z.3f}"), ("logit", "", "", f"{account.logit:+z.3f}")]
