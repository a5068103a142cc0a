"""Checks for skew between training and serving: whether documents become the tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from intentctl.doctor.finding import Finding, Severity, by_share, error, note, some_of, warning
from intentctl.doctor.reach import Obstacle, out_of_reach
from intentctl.doctor.subject import Subject
from predictor.model.ngrams import MARK, is_ngram
from predictor.model.tokenizer import Tokenizer, TokenizerName, basic_english

_FEWEST_CHARACTERS: Final = 10
_MOSTLY: Final = 0.9
_WRONG: Final = 0.5
_ODD: Final = 0.05
_SUBWORD_MARKS: Final = {"WordPiece": "##", "byte-pair encoding": "Ġ", "SentencePiece": "▁"}


def characters_behind_words(subject: Subject) -> Iterator[Finding]:
    """Report a vocabulary of characters for documents that become words, so that nearly every token is unknown."""
    if subject.tokenizer.name is TokenizerName.BASIC_ENGLISH and _is_of_characters(subject.tokens):
        yield error(
            "characters-behind-words",
            f"{_single(subject.tokens)} of {len(subject.tokens)} tokens of the vocabulary are single characters, and "
            f"{_tokenizer_name(subject)} splits documents into words; {_evidence(subject)}",
            f'write "Tokenizer": "{TokenizerName.BASIC_ENGLISH_CHARACTERS}" into the manifest, or train with words',
        )


def characters_without_a_name(subject: Subject) -> Iterator[Finding]:
    """Report characters without a tokenizer name, a mistake of the book's sample that other predictors miss."""
    of_characters = subject.tokenizer.name is not TokenizerName.BASIC_ENGLISH
    if subject.manifest.tokenizer is None and of_characters and _is_of_characters(subject.tokens):
        yield warning(
            "characters-without-a-name",
            f"{_single(subject.tokens)} of {len(subject.tokens)} tokens of the vocabulary are single characters, and "
            "the manifest names no tokenizer: this predictor detects it and uses characters, but others "
            f"that follow the book's handler split documents into words; {_evidence(subject)}",
            f'write "Tokenizer": "{subject.tokenizer}" into the manifest, and use the same tokenizer '
            "wherever else the model is served; "
            "words with n-grams make better models",
        )


def words_behind_characters(subject: Subject) -> Iterator[Finding]:
    """Report a vocabulary of words for documents that become characters."""
    longer = out_of_reach(subject.tokens, subject.tokenizer).get(Obstacle.LONGER, [])
    if longer:
        share = len(longer) / len(subject.tokens)
        yield Finding(
            by_share(share, wrong=_WRONG, odd=_ODD),
            "words-behind-characters",
            f"{len(longer)} of {len(subject.tokens)} tokens of the vocabulary have several characters, as "
            f"{some_of(longer)}, and {_tokenizer_name(subject)} splits documents into single characters",
            f'write "Tokenizer": "{TokenizerName.BASIC_ENGLISH}" into the manifest if the model was trained with words',
        )


def capitals(subject: Subject) -> Iterator[Finding]:
    """Report tokens with capitals, because documents are lowercased before the lookup."""
    what = "capital letters, but documents are converted to lower case"
    advice = "convert the training texts to lower case before the vocabulary is made, and train again"
    yield from _out_of_reach(subject, Obstacle.CAPITALS, "capitals", what, advice)


def not_normalized(subject: Subject) -> Iterator[Finding]:
    """Report tokens with curly apostrophes and the like, because documents are normalized before the lookup."""
    what = "curly apostrophes or other characters that normalization replaces"
    advice = "make the vocabulary with the tokenizer that serves the model, and train again"
    yield from _out_of_reach(subject, Obstacle.SPELLING, "not-normalized", what, advice)


def without_normalization(subject: Subject) -> Iterator[Finding]:
    """Report a model that treats each spelling of an apostrophe as a different token, as models of other systems do."""
    tokenizer = subject.tokenizer
    is_of_words = tokenizer.name is TokenizerName.BASIC_ENGLISH and not _is_of_characters(subject.tokens)
    if is_of_words and not tokenizer.is_normalized:
        yield note(
            "no-normalization",
            f"{_tokenizer_name(subject)} does not normalize: curly apostrophes, full-width letters and invisible "
            "characters, which phones and web pages write, make other tokens than the plain characters",
            f'train the model with "Tokenizer": "{replace(tokenizer, is_normalized=True)}", the default of '
            "`intentctl train`; the entry alone does not suit a vocabulary that was made without it",
        )


def ngrams_that_are_not_made(subject: Subject) -> Iterator[Finding]:
    """Report a model that was trained with n-grams and is served without them."""
    made = _tokenizer_that_makes([token for token in subject.tokens if is_ngram(token)], subject.tokenizer)
    what = "several words, or are other n-grams"
    advice = f'write "Tokenizer": "{made}" into the manifest, if the model was trained with that tokenizer'
    yield from _out_of_reach(subject, Obstacle.NGRAM, "ngrams-not-made", what, advice)


def ngrams_that_are_not_known(subject: Subject) -> Iterator[Finding]:
    """Report n-grams that the model was not trained with: they are made, looked up and left out."""
    tokenizer = subject.tokenizer
    known = [token for token in subject.tokens if is_ngram(token)]
    of_words = any(token[0] != MARK for token in known)
    kinds = ["words"] if tokenizer.words > 1 and not of_words else []
    if tokenizer.characters is not None and not any(token[0] == MARK for token in known):
        kinds.append("characters")
    if kinds:
        yield warning(
            "ngrams-not-known",
            f"{tokenizer} makes n-grams of {' and of '.join(kinds)}, but the vocabulary has none: the "
            "n-grams cost time, and the vocabulary may belong to another model",
            "name the tokenizer that the model was trained with",
        )


def cut(subject: Subject) -> Iterator[Finding]:
    """Report a vocabulary made with another tokenizer, which spaCy's "n't" and tokens with punctuation show."""
    what = "parts that are cut off or omitted"
    advice = "make the vocabulary with the tokenizer that serves the model, and train again"
    yield from _out_of_reach(subject, Obstacle.CUT, "cut", what, advice)


def subwords(subject: Subject) -> Iterator[Finding]:
    """Report a vocabulary that belongs to a language model's tokenizer."""
    for kind, mark in _SUBWORD_MARKS.items():
        marked = [token for token in subject.tokens if len(token) > len(mark) and token.startswith(mark)]
        if len(marked) >= max(_FEWEST_CHARACTERS, _ODD * len(subject.tokens)):
            yield error(
                "subwords",
                f"{len(marked)} of {len(subject.tokens)} tokens are parts of words as {kind} writes them, as "
                f"{some_of(marked, 3)}, and {_tokenizer_name(subject)} produces whole words",
                f"make the vocabulary with one of the tokenizers that are served ({TokenizerName.BASIC_ENGLISH}), "
                "and train again",
            )


def _out_of_reach(subject: Subject, obstacle: Obstacle, check: str, what: str, advice: str) -> Iterator[Finding]:
    found = out_of_reach(subject.tokens, subject.tokenizer).get(obstacle, [])
    if found:
        share = len(found) / len(subject.tokens)
        severity = by_share(share, wrong=_WRONG, odd=_ODD)
        yield Finding(
            severity,
            check,
            f"{len(found)} of {len(subject.tokens)} tokens of the vocabulary ({share:.1%}) have {what}, as "
            f"{some_of(found)}: {_tokenizer_name(subject)} never produces them",
            advice if severity is not Severity.NOTE else f"so few may stay; otherwise, {advice}",
        )


def _tokenizer_name(subject: Subject) -> str:
    return f"the tokenizer {subject.tokenizer}" + ("" if subject.manifest.tokenizer else " (the manifest names none)")


def _is_of_characters(tokens: Sequence[str]) -> bool:
    return _single(tokens) >= max(_FEWEST_CHARACTERS, _MOSTLY * len(tokens))


def _single(tokens: Sequence[str]) -> int:
    return sum(len(token) == 1 for token in tokens)


def _evidence(subject: Subject) -> str:
    """Return how many words of its own labels, which the model should know, are unknown to it."""
    words = basic_english(" ".join(subject.model.labels).replace("_", " "))
    known = subject.vocabulary.indices
    unknown = sum(word not in known for word in words)
    return f"{unknown} of the {len(words)} words in the model's labels are not in the vocabulary"


def _tokenizer_that_makes(ngrams: Sequence[str], served: Tokenizer) -> Tokenizer:
    words = max((token.count(" ") + 1 for token in ngrams if token[0] != MARK), default=1)
    lengths = [len(token) - len(MARK) for token in ngrams if token[0] == MARK]
    return replace(served, words=words, characters=(min(lengths), max(lengths)) if lengths else None)
