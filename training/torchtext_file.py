"""Writes vocab.pth in the form of torchtext 0.18, without torchtext: both that library and this predictor load it.

``torch.save(vocab)`` pickles an ``nn.Module`` whose only attribute of interest is a vocabulary in C++. Neither class
can be imported here, so the few opcodes of the pickle are written one by one. Their order and the numbers of the memo
are those of CPython's own pickler: the same tokens yield identical bytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Sequence
from typing import Final

from predictor.model.vocabulary import Vocabulary

_PROTOCOL: Final = b"\x80\x02"
_GLOBAL: Final = b"c"
_NEW_OBJECT: Final = b"\x81"
_REDUCE: Final = b"R"
_BUILD: Final = b"b"
_MARK: Final = b"("
_EMPTY_TUPLE: Final = b")"
_TUPLE: Final = b"t"
_TUPLE_OF_ONE: Final = b"\x85"
_EMPTY_LIST: Final = b"]"
_APPEND: Final = b"a"
_APPEND_ALL: Final = b"e"
_EMPTY_DICTIONARY: Final = b"}"
_SET_ITEMS: Final = b"u"
_NONE: Final = b"N"
_TRUE: Final = b"\x88"
_STOP: Final = b"."

_LARGEST_BATCH: Final = 1000
"""Maximum number of elements that the pickler appends to a list at once."""

# Hooks and modules of an nn.Module of torch 2.3, the last release that torchtext 0.18 was built for.
_HOOKS_BEFORE_FLAG: Final = ("_backward_pre_hooks", "_backward_hooks")
_HOOKS_AFTER_FLAG: Final = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_modules",
)

_STEM: Final = "vocab"
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)


def vocabulary_file(vocabulary: Vocabulary) -> bytes:
    """Return the bytes of ``vocab.pth``: identical for equal vocabularies."""
    members = {
        "data.pkl": pickled_vocabulary(vocabulary),
        "byteorder": b"little",
        "version": b"3\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"{_STEM}/{name}", _EARLIEST), data)
    return buffer.getvalue()


def pickled_vocabulary(vocabulary: Vocabulary) -> bytes:
    """Return the pickle of ``torchtext.vocab.vocab.Vocab`` in such a file."""
    pickle = _Pickle()
    pickle.new_object("torchtext.vocab.vocab", "Vocab")
    pickle.remembered(_EMPTY_DICTIONARY)
    pickle.write(_MARK)
    _write_module(pickle)
    pickle.text("vocab")
    _write_inner(pickle, vocabulary)
    pickle.write(_SET_ITEMS + _BUILD + _STOP)
    return bytes(pickle.data)


def _write_module(pickle: _Pickle) -> None:
    """Write the attributes that every ``nn.Module`` has."""
    pickle.text("training")
    pickle.write(_TRUE)
    _write_ordered_dictionaries(pickle, ("_parameters", "_buffers"))
    pickle.text("_non_persistent_buffers_set")
    pickle.reference("__builtin__", "set")
    pickle.remembered(_EMPTY_LIST)
    pickle.remembered(_TUPLE_OF_ONE)
    pickle.remembered(_REDUCE)
    _write_ordered_dictionaries(pickle, _HOOKS_BEFORE_FLAG)
    pickle.text("_is_full_backward_hook")
    pickle.write(_NONE)
    _write_ordered_dictionaries(pickle, _HOOKS_AFTER_FLAG)


def _write_ordered_dictionaries(pickle: _Pickle, names: Iterable[str]) -> None:
    for name in names:
        pickle.text(name)
        pickle.reference("collections", "OrderedDict")
        pickle.write(_EMPTY_TUPLE)
        pickle.remembered(_REDUCE)


def _write_inner(pickle: _Pickle, vocabulary: Vocabulary) -> None:
    """Write the vocabulary in C++, whose state is its version, integers, tokens and tensors."""
    default = vocabulary.default_index
    pickle.new_object("torchtext._torchtext", "Vocab")
    pickle.write(_MARK)
    pickle.text("0.0.2")
    pickle.integers([] if default is None else [default])
    pickle.texts(vocabulary.tokens)
    pickle.remembered(_EMPTY_LIST)
    pickle.remembered(_TUPLE)
    pickle.write(_BUILD)


class _Pickle:
    """Opcodes of protocol 2, in sequence.

    The pickler stores every object that it might meet again in a memo, under the next free number.
    """

    def __init__(self) -> None:
        self.data = bytearray(_PROTOCOL)
        self._remembered = 0
        self._references: dict[tuple[str, str], int] = {}

    def write(self, opcodes: bytes) -> None:
        """Write ``opcodes`` whose results are not stored in the memo."""
        self.data += opcodes

    def remembered(self, opcodes: bytes) -> None:
        """Write ``opcodes`` and store the result in the memo."""
        number = self._remembered
        self.write(opcodes + (struct.pack("<cB", b"q", number) if number < 256 else struct.pack("<cI", b"r", number)))
        self._remembered += 1

    def reference(self, module: str, name: str) -> None:
        """Write a reference to a class; the second time, a reference to the memo."""
        number = self._references.get((module, name))
        if number is None:
            self._references[module, name] = self._remembered
            self.remembered(_GLOBAL + f"{module}\n{name}\n".encode())
        else:
            self.write(struct.pack("<cB", b"h", number))

    def new_object(self, module: str, name: str) -> None:
        """Write an object that is created without arguments."""
        self.reference(module, name)
        self.remembered(_EMPTY_TUPLE + _NEW_OBJECT)

    def text(self, value: str) -> None:
        """Write a string."""
        encoded = value.encode()
        self.remembered(struct.pack("<cI", b"X", len(encoded)) + encoded)

    def integers(self, values: Sequence[int]) -> None:
        """Write a list of at most one 32-bit integer, in as few bytes as possible."""
        self.remembered(_EMPTY_LIST)
        for value in values:
            self.write(_integer(value) + _APPEND)

    def texts(self, values: Sequence[str]) -> None:
        """Write a list of strings."""
        self.remembered(_EMPTY_LIST)
        if len(values) == 1:
            self.text(values[0])
            self.write(_APPEND)
            return
        for start in range(0, len(values), _LARGEST_BATCH):
            self.write(_MARK)
            for value in values[start : start + _LARGEST_BATCH]:
                self.text(value)
            self.write(_APPEND_ALL)


def _integer(value: int) -> bytes:
    if 0 <= value < 1 << 8:
        return struct.pack("<cB", b"K", value)
    if 0 <= value < 1 << 16:
        return struct.pack("<cH", b"M", value)
    return struct.pack("<ci", b"J", value)
