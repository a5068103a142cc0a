"""Checks of the weights: what holds for every embedding row holds for every document, as the network is linear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from intentctl.doctor.finding import Finding, by_share, error, some_of, warning
from intentctl.doctor.reach import is_special
from intentctl.doctor.subject import Subject

_ODD: Final = 0.05
_WRONG: Final = 0.5
_HARDLY: Final = 0.5
_STRANGE: Final = 1e3


def rows_of_zeros(subject: Subject) -> Iterator[Finding]:
    """Report tokens that contribute nothing."""
    vocabulary = subject.vocabulary
    empty = set(np.flatnonzero(~subject.layers.embedding.any(axis=1)).tolist())
    tokens = [
        token
        for index, token in enumerate(vocabulary.tokens)
        if index in empty and index != subject.default_index and not is_special(token)
    ]
    if tokens:
        share = len(tokens) / len(subject.tokens)
        yield Finding(
            by_share(share, wrong=_WRONG, odd=_ODD),
            "rows-of-zeros",
            f"the rows of {len(tokens)} tokens ({share:.1%}) are all zeros, as those of {some_of(tokens)}: "
            "these tokens contribute nothing, but count as known",
            "remove these tokens from the vocabulary, or find out why they were not trained",
        )


def one_answer(subject: Subject) -> Iterator[Finding]:
    """Report a model for which one label wins, whatever the document."""
    winners = subject.outputs.winners
    if len(winners) == 1 and subject.network.classes > 1:
        (winner,) = winners
        yield error(
            "one-answer",
            f"every document is answered with {subject.model.labels[winner]!r}: no token speaks for another label",
            "the training has failed: check its loss, learning rate and labels",
        )


def labels_that_never_win(subject: Subject) -> Iterator[Finding]:
    """Report labels that lose to another one in every row, and therefore in every document."""
    if len(subject.outputs.winners) == 1:
        return
    labels = subject.model.labels
    pairs = [f"{labels[loser]!r} (to {labels[other]!r})" for loser, other in subject.outputs.dominated.items()]
    if pairs:
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        yield warning(
            "labels-that-never-win",
            f"{len(pairs)} of the labels can never be the answer, because each loses to another one for every token: "
            f"{', '.join(pairs[:5])}{more}",
            "check that these labels have training texts of their own",
        )


def hardly_any_difference(subject: Subject) -> Iterator[Finding]:
    """Report weights that look as if nothing had been learned."""
    spread = _spread(subject)
    if spread < _HARDLY and subject.network.classes > 1:
        yield error(
            "hardly-any-difference",
            f"the outputs hardly differ, whatever the document: no score is above {_highest_score(subject):.3g} "
            f"of {subject.network.classes} labels",
            "the model was saved before it was trained, or has learned nothing; train it again",
        )


def threshold_out_of_reach(subject: Subject) -> Iterator[Finding]:
    """Report a threshold that no score can reach."""
    threshold, highest = subject.manifest.confidence.threshold, _highest_score(subject)
    if threshold > highest:
        yield error(
            "threshold-out-of-reach",
            f"the threshold is {threshold:g}, and no document can score above {highest:.3g}: all answers fall back",
            "lower Confidence.threshold, or check Confidence.temperature",
        )


def strange_magnitude(subject: Subject) -> Iterator[Finding]:
    """Report weights that no training of such a network produces."""
    arrays = {"embedding.weight": subject.layers.embedding}
    for number, linear in enumerate(subject.layers.linears, start=1):
        arrays |= {f"fc{number}.weight": linear.weight, f"fc{number}.bias": linear.bias}
    largest = {name: float(max(array.max(initial=0.0), -array.min(initial=0.0))) for name, array in arrays.items()}
    strange = [f"{name} (up to {size:.3g})" for name, size in largest.items() if size > _STRANGE]
    if strange:
        yield warning(
            "strange-magnitude",
            f"weights are far larger than those of any normal training: {', '.join(strange)}; scores will be 0 or 1",
            "check whether the training has diverged or the file is damaged",
        )


def other_hidden_size(subject: Subject) -> Iterator[Finding]:
    """Report a wrong fc_size: the book's predictor builds the network from the manifest, and then cannot load it."""
    first = subject.layers.linears[0].weight.shape[0]
    fc_size = subject.manifest.fc_size
    if fc_size is not None and len(subject.layers.linears) > 1 and fc_size != first:
        yield warning(
            "other-hidden-size",
            f"the manifest's fc_size is {fc_size}, but the first layer of model.pth has {first} outputs; this "
            "predictor uses the file, and the book's predictor cannot load it",
            f"write {first} into the manifest, unless the file belongs to another model",
        )


def _spread(subject: Subject) -> float:
    return subject.outputs.spread / subject.manifest.confidence.temperature


def _highest_score(subject: Subject) -> float:
    """Return an upper bound on scores: the probability of a label that leads all others by the largest margin."""
    others = subject.network.classes - 1
    return 1.0 / (1.0 + others * math.exp(-min(_spread(subject), 700.0)))
