"""The checks: small functions that take what is examined and yield findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from intentctl.doctor.checks import baseline, confidence, files, labels, network, tokens, vocabulary
from intentctl.doctor.finding import Finding
from intentctl.doctor.subject import Folder, Subject
from serving.domain.manifest import Manifest

OF_FOLDERS: Final[Sequence[Callable[[Folder], Iterator[Finding]]]] = (
    files.classes_turned_around,
    files.classes_from_one,
    files.too_large,
)
"""Checks of every folder, whether or not it holds a model."""

OF_MANIFESTS: Final[Sequence[Callable[[Manifest], Iterator[Finding]]]] = (
    files.no_sums,
    files.no_version,
    labels.one_label,
    labels.same_label_twice,
    labels.empty_label,
    labels.odd_white_space,
    labels.alike_but_for_case,
    labels.only_numbers,
    confidence.no_temperature,
    confidence.no_threshold,
    confidence.threshold_without_effect,
    confidence.unknown_fallback,
    baseline.no_baseline,
    baseline.other_labels,
    baseline.sums_that_differ,
    baseline.unknown_tokens,
    baseline.empty_documents,
    baseline.mostly_fallbacks,
)
"""Checks of every manifest that can be parsed."""

OF_MODELS: Final[Sequence[Callable[[Subject], Iterator[Finding]]]] = (
    tokens.characters_behind_words,
    tokens.characters_without_a_name,
    tokens.words_behind_characters,
    tokens.capitals,
    tokens.not_normalized,
    tokens.without_normalization,
    tokens.ngrams_that_are_not_made,
    tokens.ngrams_that_are_not_known,
    tokens.cut,
    tokens.subwords,
    vocabulary.no_default_index,
    vocabulary.word_for_unknown_tokens,
    vocabulary.indices_that_differ,
    vocabulary.rows_without_a_token,
    vocabulary.decoded_wrongly,
    vocabulary.not_composed,
    network.rows_of_zeros,
    network.one_answer,
    network.labels_that_never_win,
    network.hardly_any_difference,
    network.threshold_out_of_reach,
    network.strange_magnitude,
    network.other_hidden_size,
)
"""Checks of every model that can be loaded."""
