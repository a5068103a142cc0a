"""Checks of the names of the outputs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from intentctl.doctor.finding import Finding, error, some_of, warning
from serving.domain.manifest import Manifest


def one_label(manifest: Manifest) -> Iterator[Finding]:
    """Report a model with a single label, which has nothing to distinguish."""
    if len(manifest.labels) == 1:
        yield error(
            "one-label",
            "the model has one label, so all answers are the same",
            "train the model with at least two labels",
        )


def same_label_twice(manifest: Manifest) -> Iterator[Finding]:
    """Report outputs that share a label: they compete, and their scores are not added."""
    twice = [label for label, count in Counter(manifest.labels).items() if count > 1]
    if twice:
        yield warning(
            "same-label-twice",
            f"several outputs have the same label: {some_of(twice)}; each output has its own score, lower "
            "than their sum",
            "give each output its own label, or train with one output for both",
        )


def empty_label(manifest: Manifest) -> Iterator[Finding]:
    """Report labels that are empty."""
    empty = [index for index, label in enumerate(manifest.labels) if not label.strip()]
    if empty:
        yield error(
            "empty-label",
            f"the label of output {', '.join(map(str, empty))} is empty: clients cannot distinguish it "
            "from a missing answer",
            "look for rows without a label in the training data, and train again",
        )


def odd_white_space(manifest: Manifest) -> Iterator[Finding]:
    """Report labels that contain invisible white space."""
    odd = [label for label in manifest.labels if label.strip() and label != " ".join(label.split())]
    if odd:
        yield warning(
            "odd-white-space",
            f"labels have invisible white space: {some_of(odd)}; clients that compare labels will not match them",
            "strip the labels of the training data, or correct classes in the manifest",
        )


def alike_but_for_case(manifest: Manifest) -> Iterator[Finding]:
    """Report labels that may be two spellings of one intent, which the model treats as two intents."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for label in manifest.labels:
        alike["".join(character for character in label.casefold() if character.isalnum())].add(label)
    pairs = [" and ".join(sorted(map(repr, labels))) for key, labels in alike.items() if key and len(labels) > 1]
    if pairs:
        yield warning(
            "alike-but-for-case",
            f"labels differ only in case, blanks or punctuation: {'; '.join(pairs[:5])}",
            "if the labels mean one intent, write them the same way in the training data, and train again",
        )


def only_numbers(manifest: Manifest) -> Iterator[Finding]:
    """Report labels that are still the numbers that training turned them into."""
    if len(manifest.labels) > 1 and all(label.strip().isdecimal() for label in manifest.labels):
        yield warning(
            "only-numbers",
            f"all labels are numbers, as {some_of(list(manifest.labels), 3)}",
            "write the names of the intents into classes, unless clients expect numbers",
        )
