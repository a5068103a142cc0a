"""An explanation as one HTML file that needs no network and runs no code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from intentctl.explanations.account import Account
from intentctl.explanations.colours import AGAINST, FOR, colour_of, hexadecimal
from intentctl.explanations.marked import pieces_of, shown_token
from intentctl.explanations.shares import Token, strength
from serving.telemetry.foreign_text import shown

_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1f2328; }}
h1 {{ font-size: 1.4rem; margin-bottom: 0; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
.note {{ color: #59636e; }}
.text {{ font-size: 1.25rem; line-height: 2; white-space: pre-wrap; overflow-wrap: anywhere; }}
.text span {{ padding: .1em .15em; border-radius: .2em; }}
.unknown {{ text-decoration: underline wavy; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; overflow-wrap: anywhere; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.bar {{ display: inline-block; height: .8em; }}
</style>
</head>
<body>
"""
_WIDEST_BAR: Final = 12.0
"""Width of the longest bar, in em."""


def html_page(accounts: Sequence[Account], document: str, *, model: str, answer: str, top: int) -> bytes:
    """Return the page. Texts may hold any character.

    Args:
        accounts: accounts of the explained labels.
        document: the document as it was sent.
        model: id and version of the model.
        answer: the answer in words.
        top: number of tokens of each label to list one by one.
    """
    legend = (
        f'on <span style="background:{hexadecimal(FOR)}">blue</span>: words for the label;'
        f' on <span style="background:{hexadecimal(AGAINST)}">orange</span>: words against the label;'
        ' <span class="unknown">underlined</span>: words that the vocabulary does not have'
    )
    parts = [
        _HEAD.format(title=escape(f"{model}: {accounts[0].label}")),
        f"<h1>{escape(shown(answer))}</h1>\n",
        f'<p class="note">{escape(model)}; {legend}</p>\n',
    ]
    for account in accounts:
        parts += _section(account, document, top)
    parts.append("</body>\n</html>\n")
    return "".join(parts).encode("utf-8", "replace")


def _section(account: Account, document: str, top: int) -> Iterator[str]:
    yield f'<h2>{escape(shown(account.label))}</h2>\n<p class="text">'
    yield from _text(account, document)
    yield "</p>\n<table>\n"
    yield '<tr><th>token</th><th>made of</th><th class="number">times</th><th class="number">adds</th><th></th></tr>\n'
    most = max((abs(token.adds) for token in account.tokens), default=0.0) or 1.0
    for token in account.tokens[:top]:
        yield _row(token, token.adds / most)
    others = account.tokens[top:]
    if others:
        times, adds = sum(token.times for token in others), sum(token.adds for token in others)
        yield _cells(f"{len(others)} others", "", f"{times}", adds)
    yield _cells("bias", "", "", account.bias)
    yield _cells("logit", "", "", account.logit)
    yield f"</table>\n<p>{escape(account.sentence)}</p>\n"


def _text(account: Account, document: str) -> Iterator[str]:
    words = account.words
    strengths = strength(words)
    for piece in pieces_of(document, [word.text for word in words]):
        # Line breaks are left to the browser; other unprintable characters are escaped.
        text = escape("\n".join(map(shown, piece.text.split("\n"))))
        if piece.word is None:
            yield text
            continue
        word, colour = words[piece.word], colour_of(strengths[piece.word])
        style = f' style="background:{hexadecimal(colour)}"' if colour else ""
        unknown = ' class="unknown"' if word.is_unknown else ""
        title = f"{word.adds:+z.3f}: {word.own:+z.3f} by itself, {word.of_ngrams:+z.3f} in n-grams"
        yield f'<span{unknown}{style} title="{title}">{text}</span>'


def _row(token: Token, share: float) -> str:
    name = escape(shown_token(token.text))
    if token.is_unknown:
        name = f'<span class="unknown">{name}</span>'
    width, colour = abs(share) * _WIDEST_BAR, hexadecimal(FOR if share > 0 else AGAINST)
    bar = f'<span class="bar" style="width:{width:.2f}em;background:{colour}"></span>'
    return _cells(name, token.kind, f"{token.times}", token.adds, bar)


def _cells(name: str, kind: str, times: str, adds: float, bar: str = "") -> str:
    return (
        f'<tr><td>{name}</td><td>{kind}</td><td class="number">{times}</td><td class="number">{adds:+z.3f}</td>'
        f"<td>{bar}</td></tr>\n"
    )
