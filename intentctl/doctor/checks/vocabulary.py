"""Checks of the vocabulary, alone and against the rows of the embedding."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from intentctl.doctor.finding import Finding, by_share, error, note, some_of, warning
from intentctl.doctor.reach import is_special
from intentctl.doctor.subject import Subject
from predictor.model.vocabulary import UNKNOWN_TOKEN
from serving.domain.wording import counted

_ODD: Final = 0.05
_BYTE_ORDER_MARK: Final = "\ufeff"


def no_default_index(subject: Subject) -> Iterator[Finding]:
    """Report a missing default index: torchtext, and so the book's predictor, raises at the first unknown token."""
    if subject.default_index is not None:
        return
    if UNKNOWN_TOKEN in subject.vocabulary.indices:
        yield warning(
            "no-default-index",
            f"the vocabulary has {UNKNOWN_TOKEN} but no default index: unknown tokens are ignored here, "
            "and are an error in torchtext",
            f'call vocab.set_default_index(vocab["{UNKNOWN_TOKEN}"]) before saving the vocabulary',
        )
    else:
        yield warning(
            "no-default-index",
            f"the vocabulary has neither {UNKNOWN_TOKEN} nor a default index: unknown tokens are ignored "
            "here, and are an error in torchtext",
            f'make the vocabulary with specials=["{UNKNOWN_TOKEN}"], and set the default index',
        )


def word_for_unknown_tokens(subject: Subject) -> Iterator[Finding]:
    """Report a default index that belongs to a word, as when it was set to 0."""
    default = subject.default_index
    if default is not None and default < len(subject.vocabulary.tokens):
        token = subject.vocabulary.tokens[default]
        if not is_special(token):
            yield warning(
                "word-for-unknown-tokens",
                f"every unknown token is treated as {token!r}, which has the default index {default}",
                f'make the vocabulary with specials=["{UNKNOWN_TOKEN}"], and set the default index to that token',
            )


def indices_that_differ(subject: Subject) -> Iterator[Finding]:
    """Report tokens and indices that disagree: torchtext until 0.11 stores them separately, and both can be edited."""
    vocabulary = subject.vocabulary
    differing = [token for index, token in enumerate(vocabulary.tokens) if vocabulary.indices.get(token) != index]
    if differing:
        yield error(
            "indices-that-differ",
            f"itos and stoi of the vocabulary disagree for {counted(len(differing), 'token')}, as {some_of(differing)}",
            "save the vocabulary with which the model was trained",
        )
        return
    listed = set(vocabulary.tokens)
    more = [token for token in vocabulary.indices if token not in listed]
    if more:
        yield note(
            "indices-that-differ",
            f"stoi of the vocabulary has {counted(len(more), 'token')} that itos does not have, as {some_of(more)}: "
            "torchtext adds tokens that are looked up, and they count as known",
            "save the vocabulary before using it",
        )


def rows_without_a_token(subject: Subject) -> Iterator[Finding]:
    """Report weights that belong to a larger vocabulary."""
    rows, tokens = subject.network.vocabulary_size, len(subject.vocabulary)
    if rows > tokens:
        yield warning(
            "rows-without-a-token",
            f"model.pth has {rows} rows, and the vocabulary {counted(tokens, 'token')}: {counted(rows - tokens, 'row')}"
            " can never be used, and the vocabulary may belong to another model",
            "publish the weights and the vocabulary of one training together",
        )


def decoded_wrongly(subject: Subject) -> Iterator[Finding]:
    """Report training texts that were read with the wrong encoding."""
    broken = [token for token in subject.tokens if _BYTE_ORDER_MARK in token or _is_utf_8_read_as_another(token)]
    if broken:
        share = len(broken) / len(subject.tokens)
        yield Finding(
            by_share(share, wrong=2.0, odd=_ODD),
            "decoded-wrongly",
            f"the vocabulary has {counted(len(broken), 'token')} in UTF-8 that was decoded with another encoding, as "
            f"{some_of(broken)}",
            "read the training texts as UTF-8 (utf-8-sig where a byte order mark comes first), and train again",
        )


def not_composed(subject: Subject) -> Iterator[Finding]:
    """Report letters that are separate from their accents, as some systems write them; users type composed letters."""
    apart = [token for token in subject.tokens if not unicodedata.is_normalized("NFC", token)]
    # A tokenizer that normalizes composes what users type, so that these tokens are out of its reach.
    if apart and not subject.tokenizer.is_normalized:
        share = len(apart) / len(subject.tokens)
        yield Finding(
            by_share(share, wrong=2.0, odd=_ODD),
            "not-composed",
            f"the vocabulary has {counted(len(apart), 'token')} with separate letters and accents (not Unicode's NFC),"
            f" as {some_of(apart)}: users mostly type composed characters, which are not found",
            'apply unicodedata.normalize("NFC", text) to the training texts, and train again',
        )


def _is_utf_8_read_as_another(token: str) -> bool:
    if token.isascii():
        return False
    # "Ã©" is a misread "é"; tokenizers that lowercase have turned it into "ã©".
    forms = (token, token.replace("ã", "Ã").replace("â", "Â"))
    return any(_is_utf_8_in(encoding, form) for form in forms for encoding in ("latin-1", "cp1252"))


def _is_utf_8_in(encoding: str, text: str) -> bool:
    try:
        return not text.encode(encoding).decode("utf-8").isascii()
    except UnicodeError:
        return False
