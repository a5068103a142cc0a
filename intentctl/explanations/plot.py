"""An explanation as a PNG: a bar for each word of the document, and one for each of the strongest tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from intentctl.explanations.account import Account
from intentctl.explanations.colours import AGAINST, FOR, hexadecimal
from intentctl.explanations.marked import shown_token
from intentctl.explanations.terminal import UNKNOWN_MARK
from serving.telemetry.foreign_text import shown

_DOTS_PER_INCH: Final = 120
_MOST_WORDS: Final = 40
_LONGEST_NAME: Final = 24
_INCHES_OF_BAR: Final = 0.26
_INCHES_AROUND: Final = 1.5


def draw(accounts: Sequence[Account], answer: str, top: int, path: Path) -> None:
    """Write a row of panels for each label: words on the left, tokens on the right.

    For a long document, only the words that add or subtract most are drawn.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: ``path`` cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slower to import than everything else that the command line needs

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    bars = [max(min(len(account.words), _MOST_WORDS), min(len(account.tokens), top), 1) for account in accounts]
    heights = [_INCHES_OF_BAR * count + _INCHES_AROUND for count in bars]
    figure, panels = plt.subplots(
        len(accounts), 2, figsize=(11, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for (left, right), account in zip(panels, accounts, strict=True):
        _words(left, account)
        _tokens(right, account, top)
    figure.suptitle(_written(shown(answer)), fontsize=11)
    try:
        with warnings.catch_warnings():
            # Ignore warnings about characters that the font lacks; boxes are drawn in their place.
            warnings.filterwarnings("ignore", message=r"Glyph \d+", category=UserWarning)
            figure.tight_layout()
            figure.savefig(path, dpi=_DOTS_PER_INCH, format="png")
    finally:
        plt.close(figure)


def _words(panel: Any, account: Account) -> None:
    order = sorted(range(len(account.words)), key=lambda index: -abs(account.words[index].adds))
    words = [account.words[index] for index in sorted(order[:_MOST_WORDS])]
    names = [_name(word.text, is_unknown=word.is_unknown) for word in words]
    _bars(panel, names, [word.adds for word in words], f"contributions of the words to {account.label}")
    if any(word.of_ngrams for word in words):
        panel.plot([word.own for word in words], range(len(words)), "|", color="black", label="without n-grams")
        panel.legend(fontsize=8, loc="best")


def _tokens(panel: Any, account: Account, top: int) -> None:
    tokens = account.tokens[:top]
    names = [_name(shown_token(token.text), is_unknown=token.is_unknown) for token in tokens]
    title = f"strongest tokens; bias {account.bias:+z.3f}, logit {account.logit:+z.3f}, score {account.score:.3f}"
    _bars(panel, names, [token.adds for token in tokens], title)


def _bars(panel: Any, names: Sequence[str], values: Sequence[float], title: str) -> None:
    colours = [hexadecimal(FOR if value > 0 else AGAINST) for value in values]
    panel.barh(range(len(values)), values, color=colours)
    panel.set_yticks(range(len(values)), names, fontsize=8)
    panel.invert_yaxis()
    panel.axvline(0.0, color="black", linewidth=0.8)
    panel.set_title(_written(shown(title)), fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)


def _name(text: str, *, is_unknown: bool) -> str:
    name = shown(text)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 1]}…"
    return _written(f"{UNKNOWN_MARK}{name}{UNKNOWN_MARK}" if is_unknown else name)


def _written(text: str) -> str:
    """Return ``text`` escaped for matplotlib, which reads text between dollars as a formula."""
    return text.replace("$", r"\$")
