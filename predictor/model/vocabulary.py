"""Vocabularies, which map tokens to indices, of every torchtext release, read without torchtext.

``docs/torchtext.md`` records the pickled form of torchtext's classes and the results of their lookups. A vocabulary's
kind follows from the shape of its state, because one class name served two kinds.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from predictor.model.files.allowance import Allowance
from predictor.model.files.container import STORAGES, naming, open_torch_file
from predictor.model.files.pickle_reader import CONTAINERS, Global, Instance
from serving.domain.errors import InvalidModelFile

UNKNOWN_TOKEN: Final = "<unk>"  # noqa: S105 - a token of text, no password

_VOCABULARY_CLASSES: Final = frozenset(
    {
        Global("torchtext.vocab", "Vocab"),  # 0.1 to 0.10
        Global("torchtext.legacy.vocab", "Vocab"),  # 0.9 to 0.11
        Global("torchtext.experimental.vocab", "Vocab"),  # 0.8 and 0.9
        Global("torchtext.vocab.vocab", "Vocab"),  # 0.11 to 0.18
    }
)
_INNER_CLASSES: Final = frozenset(
    {
        Global("torchtext._torchtext", "Vocab"),
        Global("torch", "ScriptObject"),
        Global("torch._C", "ScriptObject"),
    }
)
_OTHERS: Final = frozenset(
    {
        Global("torchtext.vocab", "_default_unk_index"),
        # Legacy vocabularies may carry vectors, which serving does not need.
        Global("torch._utils", "_rebuild_tensor_v2"),
        *STORAGES,
    }
)
_ALLOWED: Final = _VOCABULARY_CLASSES | _INNER_CLASSES | _OTHERS | CONTAINERS

_DAMAGED: Final = "vocab.pth is not a vocabulary that torchtext wrote; publish the model again"


# Bytes of a string without its characters, and of an integer, in CPython, rounded up as its allocator does.
_BYTES_PER_TEXT: Final = 64
_BYTES_PER_INDEX: Final = 32
_TOKENS_AT_ONCE: Final = 4096

_SHARED_INDICES: Final = tuple(range(1 << 16))
"""Integers that all vocabularies share, just as they share their tokens."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Vocabulary:
    """Content of a pickled torchtext ``Vocab``. Immutable: models may share one.

    Created by :meth:`of` or :meth:`with_indices`.
    """

    tokens: tuple[str, ...]
    """Tokens by their index (``itos``)."""
    indices: Mapping[str, int]
    """Index of each token (``stoi``)."""
    default_index: int | None
    """Index of every other token; ``None`` where torchtext would raise an error or return None."""
    lowest: int = field(compare=False)
    """Lowest index of a token; 0 if there are no tokens."""
    highest: int = field(compare=False)
    """Highest index of a token; 0 if there are no tokens."""
    size: int = field(init=False, compare=False, repr=False)
    """Bytes of memory, as if no other vocabulary shared its texts."""

    def __post_init__(self) -> None:
        texts = sum(map(_bytes_of_texts, _parts(self.indices))) + _BYTES_PER_TEXT * len(self.indices)
        indices = _BYTES_PER_INDEX * max(0, len(self.indices) - len(_SHARED_INDICES))
        object.__setattr__(self, "size", sys.getsizeof(self.indices) + sys.getsizeof(self.tokens) + texts + indices)

    def __len__(self) -> int:
        return len(self.tokens)

    def lookup(self, token: str) -> int | None:
        """Return the index of ``token``, or the default index if the token is unknown."""
        return self.indices.get(token, self.default_index)

    @classmethod
    def of(cls, tokens: Iterable[object], default_index: int | None) -> Vocabulary:
        """Return the vocabulary of ``tokens`` in the order of their indices.

        Raises:
            InvalidModelFile: a token is not text; or it occurs twice, which torchtext refuses too.
        """
        ordered = _shared_texts(tokens)
        numbers = itertools.chain(_SHARED_INDICES, itertools.count(len(_SHARED_INDICES)))
        indices = dict(zip(ordered, numbers, strict=False))
        if len(indices) != len(ordered):
            raise InvalidModelFile("vocab.pth holds a token twice; publish the model again")
        return cls(ordered, indices, default_index, 0, max(0, len(ordered) - 1))

    @classmethod
    def with_indices(
        cls, tokens: Iterable[object], indices: Mapping[object, int], default_index: int | None
    ) -> Vocabulary:
        """Return the vocabulary of ``tokens`` and ``indices``, which need not be the inverse of each other.

        Raises:
            InvalidModelFile: a token is not text.
        """
        shared = dict(zip(_shared_texts(indices), map(_shared_index, indices.values()), strict=True))
        lowest, highest = min(shared.values(), default=0), max(shared.values(), default=0)
        return cls(_shared_texts(tokens), shared, default_index, lowest, highest)


def _parts(tokens: Iterable[str]) -> Iterator[list[str]]:
    """Yield the tokens, a few thousand at a time."""
    rest = iter(tokens)
    while part := list(itertools.islice(rest, _TOKENS_AT_ONCE)):
        yield part


def _bytes_of_texts(tokens: Sequence[str]) -> int:
    # The joined text has the character width of its widest token, so it takes at least as much as the texts alone.
    return sys.getsizeof("".join(tokens))


def _shared_texts(tokens: Iterable[object]) -> tuple[str, ...]:
    """Return the tokens, each stored once per process: tenants with the same language share most of their tokens."""
    try:
        return tuple(map(sys.intern, cast("Iterable[str]", tokens)))
    except TypeError as error:
        raise InvalidModelFile(_DAMAGED) from error


def _shared_index(index: int) -> int:
    return _SHARED_INDICES[index] if 0 <= index < len(_SHARED_INDICES) else index


def read_vocabulary(data: bytes, allowance: Allowance | None = None) -> Vocabulary:
    """Return the vocabulary that ``torch.save(vocab)`` or ``pickle.dump(vocab)`` wrote, of any torchtext release.

    A plain list of tokens, a plain dictionary of token to index, and a dictionary that holds one of these under
    ``vocab`` are read too; unknown tokens then have the index of ``<unk>``, if that token exists.

    Args:
        data: content of the file.
        allowance: bounds on memory, tokens and time; by default, bounds that every real file of this size keeps.

    Raises:
        ForbiddenPickle: the file names anything that is not part of a vocabulary. Nothing in the file is executed.
        NeedsMoreMemory: the vocabulary takes more memory than the allowance has.
        TooManyItems: the vocabulary has more tokens than the allowance has items.
        InvalidModelFile: the file is damaged, or is not a vocabulary.
    """
    with naming("vocab.pth"):
        value = open_torch_file(data).read(_ALLOWED, allowance)
    # Unwrap one level only: a dictionary may contain itself.
    match value:
        case {"vocab": (Instance() | list() | dict()) as inner}:
            return _interpreted(inner)
    return _interpreted(value)


def _interpreted(value: Any) -> Vocabulary:
    match value:
        case Instance(constructor=constructor, state=dict() as state) if constructor in _VOCABULARY_CLASSES:
            return _legacy(state) if "itos" in state else _modern(state)
        case list() if value:
            return _with_unknown(Vocabulary.of(value, None))
        # An empty dictionary is refused: it is the state_dict() of a vocabulary.
        case dict() if value and _are_indices(value.values()):
            return _with_unknown(_from_indices(value))
    raise InvalidModelFile(_DAMAGED)


def _modern(state: Mapping[Any, Any]) -> Vocabulary:
    """Read the state of a C++ vocabulary: ``(version, integers, tokens, tensors)``."""
    match state.get("vocab"):
        case Instance(constructor=constructor, state=inner) if constructor in _INNER_CLASSES:
            pass
        case _:
            raise InvalidModelFile(_DAMAGED)
    if isinstance(inner, tuple) and len(inner) == 2 and isinstance(inner[0], tuple):
        # A scripted vocabulary consists of its state and the name of its class.
        inner = inner[0]
    match inner:
        case (str() as version, list() as integers, list() as tokens, []):
            pass
        case _:
            raise InvalidModelFile(_DAMAGED)
    if version == "0.0.1":
        # The experimental vocabulary of 0.9 appends the name of its unknown token to the tokens.
        *tokens, unknown = tokens or [None]
        vocabulary = Vocabulary.of(tokens, None)
        if unknown not in vocabulary.indices:
            raise InvalidModelFile(_DAMAGED)
        return replace(vocabulary, default_index=vocabulary.indices[unknown])
    # Versions are compared as text, as in torchtext 0.18.
    if version < "0.0.2" or not _are_indices(integers):
        raise InvalidModelFile(_DAMAGED)
    return Vocabulary.of(tokens, integers[0] if integers else None)


def _legacy(state: Mapping[Any, Any]) -> Vocabulary:
    """Read the attributes of a Python vocabulary of torchtext 0.1 to 0.11."""
    tokens, indices = state.get("itos"), state.get("stoi")
    if not isinstance(tokens, list) or not isinstance(indices, dict):
        raise InvalidModelFile(_DAMAGED)
    if not _are_indices(indices.values()):
        raise InvalidModelFile(_DAMAGED)
    # Until 0.3, unknown tokens have the index 0, whatever token is there; later, that of <unk>, if it exists.
    default = indices.get(UNKNOWN_TOKEN) if "unk_index" in state else 0
    return Vocabulary.with_indices(tokens, indices, default)


def _from_indices(indices: Mapping[Any, int]) -> Vocabulary:
    ordered = sorted(indices, key=indices.__getitem__)
    if sorted(indices.values()) != list(range(len(indices))):
        raise InvalidModelFile("vocab.pth has indices with gaps or duplicates; publish the model again")
    return Vocabulary.of(ordered, None)


def _with_unknown(vocabulary: Vocabulary) -> Vocabulary:
    return replace(vocabulary, default_index=vocabulary.indices.get(UNKNOWN_TOKEN))


def _are_indices(values: Iterable[object]) -> bool:
    return set(map(type, values)) <= {int}
