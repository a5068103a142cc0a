"""Reads pickles as data: a machine for a closed set of opcodes that imports nothing and calls nothing.

Python's own unpickler imports and calls anything that a file names, and a file of a few hundred bytes (tuples of tuples
as the keys of a dictionary) can keep torch's restricted unpickler busy forever. Here a global is only a name, a call is
only recorded, keys are strings or small numbers, and an :class:`~predictor.model.files.allowance.Allowance` bounds
memory and time.

The opcodes are those that protocols 2 to 5 use for containers, numbers and text; their meaning is that of CPython's
``pickletools``.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from predictor.model.files.allowance import Allowance, TooManyItems, allowance_for
from predictor.model.files.text_runs import TextRuns
from serving.domain.errors import ForbiddenPickle, InvalidModelFile


class Global(NamedTuple):
    """A name in a module, as a pickle states it. Nothing is imported."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Instance:
    """An object that a pickle describes: a constructor, its arguments, and its state. Nothing is called."""

    constructor: Global
    arguments: tuple[object, ...]
    state: object = None


ORDERED_DICT: Final = Global("collections", "OrderedDict")
COUNTER: Final = Global("collections", "Counter")
DEFAULT_DICT: Final = Global("collections", "defaultdict")
SETS: Final = frozenset({Global("__builtin__", "set"), Global("builtins", "set")})
CONTAINERS: Final = frozenset({ORDERED_DICT, COUNTER, DEFAULT_DICT}) | SETS
"""Globals of plain data, which are read as dictionaries and lists."""

# In bytes. Shorter runs are read string by string, which costs less than finding their end.
_SHORTEST_RUN: Final = 4096
# In bytes: distance over which no run is searched for after an unsuccessful search.
_SHORTEST_PAUSE: Final = 256
_LONGEST_PAUSE: Final = 1 << 14

# Upper bounds on bytes of memory in CPython. Both tables of a dictionary that grows count, and both copies of a stack
# whose upper part becomes a list.
_BYTES_OF_STACK: Final = 18
_BYTES_OF_MEMO: Final = 152
_BYTES_OF_CONTAINER: Final = 128
_BYTES_OF_VALUE: Final = 32
_BYTES_OF_PAIR: Final = 120
_BYTES_OF_ITEM: Final = 10
# Each character of a text may take four bytes because of a single one in the text.
_BYTES_OF_CHARACTER: Final = 4
_LARGE: Final = 1 << 16
"""Bytes of a value whose memory is covered before it is read."""

_OPCODES_AT_ONCE: Final = 1024
"""Number of opcodes after which memory and time are checked."""

# Maximum number of strings on the stack beyond those of one list: picklers add a thousand items at a time.
_MOST_ON_STACK: Final = 1 << 12
_BYTES_OF_TEXT: Final = 64
# A dictionary may also hold the attributes of an object; those of a torch module are about twenty.
_MOST_ATTRIBUTES: Final = 64

# A state_dict has about eight containers per tensor, a vocabulary a few dozen. One byte of the file can take up to 70
# bytes in memory.
_MOST_CONTAINERS: Final = 1 << 18

_NO_PICKLE: Final = "a file of the model is damaged, or in an unsupported pickle protocol; publish the model again"

_TOO_MANY: Final = "a file of the model has more items than the model has a use for; publish the model again"

_MARK: Final = object()


def read_pickle(
    data: bytes,
    *,
    allowed: Collection[Global],
    persistent: Callable[[object], object] | None = None,
    start: int = 0,
    end: int | None = None,
    allowance: Allowance | None = None,
) -> tuple[Any, int]:
    """Return the object of the pickle that begins at ``start``, and the position after the pickle.

    Dictionaries, lists, tuples, text, bytes and numbers are returned as such, :data:`CONTAINERS` as dictionaries and
    lists, and everything else as :class:`Instance` and :class:`Global`.

    Args:
        data: content of the file.
        allowed: globals that the pickle may name.
        persistent: resolves a persistent id; without it, persistent ids are refused.
        start: position of the beginning of the pickle.
        end: position at or before which the pickle ends; the end of ``data`` by default.
        allowance: bounds on memory, items and time; by default, bounds that every real file of this length keeps.

    Raises:
        ForbiddenPickle: the pickle names another global, or holds an opcode that only code needs.
        NeedsMoreMemory: the objects take more memory than the allowance has.
        TooManyItems: a list or a dictionary has more items than the allowance has.
        InvalidModelFile: the pickle is damaged, or describes more objects than its length justifies.
    """
    end = len(data) if end is None else end
    allowance = allowance_for(end - start) if allowance is None else allowance
    machine = _Machine(data, start, end, allowed, persistent, allowance)
    try:
        value = machine.run()
        allowance.keep(machine.memory)
        return value, machine.position
    except (IndexError, struct.error, UnicodeDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidModelFile("a file of the model is damaged; publish the model again") from error


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(  # noqa: PLR0917 - built at one place
        self,
        data: bytes,
        start: int,
        end: int,
        allowed: Collection[Global],
        persistent: Callable[[object], object] | None,
        allowance: Allowance,
    ) -> None:
        self.position = start
        self._data = data
        self._end = end
        self._allowance = allowance
        self._built = 0
        """Upper bound on the bytes of the objects that were built, without the stack and the memo."""
        self._allowed = allowed
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._text_runs: TextRuns | None = None
        self._runs: list[tuple[npt.NDArray[Any], list[str]]] = []
        """Strings of runs, and the memo index of each, which is not in the memo yet."""
        self._no_run_before = 0
        self._pause = _SHORTEST_PAUSE
        self._work_left = end - start
        self._containers_left = _MOST_CONTAINERS

    def run(self) -> Any:
        data, end = self._data, self._end
        start = self.position
        opcodes_left = _OPCODES_AT_ONCE
        while self.position < end and (code := data[self.position]) != _STOP:
            opcodes_left -= 1
            if not opcodes_left:
                opcodes_left = _OPCODES_AT_ONCE
                self._check()
            if code == _BINUNICODE and self._push_run():
                continue
            operation = _OPERATIONS.get(code)
            if operation is None:
                # A file that does not begin with a data opcode is not a pickle, so it is not an attempt to run code.
                raise _refused_opcode(code) if self.position > start else InvalidModelFile(_NO_PICKLE)
            self.position += 1
            operation(self)
        if self.position >= end:
            raise ValueError("the pickle does not end")
        self.position += 1
        if len(self._stack) != 1:
            raise ValueError("the stack does not hold one object at the end")
        return self._stack[0]

    @property
    def memory(self) -> int:
        """Upper bound on the bytes of memory that everything built up to now takes."""
        return self._built + _BYTES_OF_STACK * len(self._stack) + _BYTES_OF_MEMO * len(self._memo)

    def _check(self, more: int = 0) -> None:
        self._allowance.cover(self.memory + more)
        self._allowance.check()

    def _push_run(self) -> bool:
        """Push the run of strings that begins at the current position; return whether a long enough run exists."""
        if self.position < self._no_run_before or self._end - self.position < _SHORTEST_RUN:
            return False
        if self._text_runs is None:
            self._text_runs = TextRuns(self._data, self._end)
        run = self._text_runs.at(self.position, _SHORTEST_RUN)
        if run is None:
            # In a dictionary, strings alternate with values: not every string is worth a search for a run.
            self._no_run_before = self.position + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return False
        self._pause = _SHORTEST_PAUSE
        if len(self._stack) + len(run) > self._allowance.most_items + _MOST_ON_STACK:
            raise TooManyItems(_TOO_MANY)
        self._check(_BYTES_OF_CHARACTER * (run.end - run.start) + (_BYTES_OF_TEXT + _BYTES_OF_STACK) * len(run))
        texts = run.texts()
        self._built += sum(map(sys.getsizeof, texts)) + _BYTES_OF_ITEM * len(texts)
        # Few of these strings are referenced again, so their memo entries are created only when one is needed.
        self._runs.append((run.memos, texts))
        self._stack.extend(texts)
        self.position = run.end
        return True

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > self._end:
            raise ValueError("the file ends in the middle")
        if count > _LARGE:
            self._check((1 + _BYTES_OF_CHARACTER) * count)
        chunk = self._data[self.position : end]
        self.position = end
        return chunk

    def number(self, layout: struct.Struct) -> Any:
        return layout.unpack(self.take(layout.size))[0]

    def text(self, count: int) -> str:
        text = _text(self.take(count))
        self._built += sys.getsizeof(text)
        return text

    def push_value(self, value: object) -> None:
        """Push a number or bytes."""
        self._built += max(_BYTES_OF_VALUE, sys.getsizeof(value))
        self._stack.append(value)

    def line(self) -> str:
        end = self._data.index(b"\n", self.position, self._end)
        line = self.text(end - self.position)
        self.position += 1
        return line

    def push(self, value: object) -> None:
        self._stack.append(value)

    def push_container(self, value: object) -> None:
        self._containers_left -= 1
        if self._containers_left < 0:
            raise ValueError("the file builds more objects than any model consists of")
        self._built += _BYTES_OF_CONTAINER
        self._stack.append(value)

    def items_to_mark(self) -> list[Any]:
        """Return the values down to the mark, which are about to become a container."""
        items = self.pop_to_mark()
        self._built += _BYTES_OF_ITEM * len(items)
        return items

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def top(self) -> Any:
        return self._stack[-1]

    def pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                items = stack[index + 1 :]
                del stack[index:]
                return items
        raise ValueError("no mark")

    def put(self, index: int) -> None:
        self._memo[index] = self.top()

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self.top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            self._remember_runs()
        self._stack.append(self._memo[index])

    def _remember_runs(self) -> None:
        for memos, texts in self._runs:
            self._check(_BYTES_OF_MEMO * len(texts))
            for memo, text in zip(memos.tolist(), texts, strict=True):
                self._memo.setdefault(memo, text)
        self._runs.clear()

    def named(self, module: object, name: object) -> None:
        # STACK_GLOBAL takes both from the stack, which may hold anything.
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global whose name is not text")
        found = Global(module, name)
        if found not in self._allowed:
            raise ForbiddenPickle(
                "a file of the model requests code that no model needs; none of it was run"
            ) from LookupError(f"{module[:80]!r} {name[:80]!r}")
        self._stack.append(found)

    def construct(self, constructor: object, arguments: object) -> None:
        if not isinstance(constructor, Global) or not isinstance(arguments, tuple):
            raise TypeError("only a named constructor can be called, with a tuple of arguments")
        self.push_container(self._constructed(constructor, arguments))

    def _constructed(self, constructor: Global, arguments: tuple[Any, ...]) -> object:
        if constructor in SETS:
            return arguments[0] if arguments else []
        if constructor == DEFAULT_DICT:
            return _Growing()
        if constructor in CONTAINERS:
            content = arguments[0] if arguments else {}
            if isinstance(content, dict):
                return content
            # Python 2 wrote ordered dictionaries as lists of pairs. A file may refer to one list many times.
            self._work_left -= len(content)
            if self._work_left < 0:
                raise ValueError("the file builds more objects than its size justifies")
            self._built += _BYTES_OF_PAIR * len(content)
            self._check()
            result: dict[Any, Any] = {}
            for key, value in content:
                _set_item(result, key, value)
            return result
        return Instance(constructor, arguments)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("items for something that is not a dictionary")
        self._built += _BYTES_OF_PAIR // 2 * len(items)
        if len(items) > _OPCODES_AT_ONCE:
            self._check()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(target, key, value)
        most = self._allowance.most_items + _MOST_ATTRIBUTES
        if len(target) > most and type(target) is dict and not self._belongs_to_a_counter():
            raise TooManyItems(_TOO_MANY)

    def _belongs_to_a_counter(self) -> bool:
        """Whether the dictionary on the top is the argument of a Counter.

        Old vocabularies count tokens that they do not contain.
        """
        return len(self._stack) > 1 and self._stack[-2] == COUNTER

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise TypeError("items for something that is not a list")
        if len(target) + len(items) > self._allowance.most_items:
            raise TooManyItems(_TOO_MANY)
        self._built += _BYTES_OF_ITEM * len(items)
        target.extend(items)

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict):
            # The state of a dictionary is ignored: it is bookkeeping of its class, such as a state_dict's _metadata.
            raise TypeError("state for something that has none")

    def resolve_persistent(self) -> None:
        if self._persistent is None:
            raise ValueError("a persistent id in a file that has none")
        self.push_container(self._persistent(self.pop()))

    def skip_protocol(self) -> None:
        if self.take(1)[0] > 5:
            raise ValueError("an unknown pickle protocol")


class _Growing(dict[Any, Any]):
    """A defaultdict of a pickle: lookups may have added items to it, so their number is not limited."""


def _text(encoded: bytes) -> str:
    # Pickles may hold lone surrogates, which Python's own reader accepts.
    return str(encoded, "utf-8", "surrogatepass")


def _set_item(target: dict[Any, Any], key: object, value: object) -> None:
    # Hashing a tuple of tuples can take forever, and large numbers can be crafted to share one hash.
    if not isinstance(key, str | int | float | None) or (isinstance(key, int) and key.bit_length() > 64):
        raise TypeError("a key that is neither text nor a small number")
    target[key] = value


def _refused_opcode(code: int) -> InvalidModelFile:
    if code in _CODE_OPCODES:
        return ForbiddenPickle("a file of the model uses a pickle opcode that only code needs; none of it was run")
    return InvalidModelFile(_NO_PICKLE)


def _reversed_pair(machine: _Machine) -> tuple[Any, Any]:
    second = machine.pop()
    return machine.pop(), second


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def make(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push_container(tuple(reversed(items)))

    return make


def _set_pair(machine: _Machine) -> None:
    key, value = _reversed_pair(machine)
    machine.set_items([key, value])


def _dict_from_mark(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.push_container({})
    machine.set_items(items)


def _append_one(machine: _Machine) -> None:
    item = machine.pop()
    machine.append([item])


_UINT8: Final = struct.Struct("<B")
_UINT16: Final = struct.Struct("<H")
_UINT32: Final = struct.Struct("<I")
_INT32: Final = struct.Struct("<i")
_UINT64: Final = struct.Struct("<Q")
_FLOAT64: Final = struct.Struct(">d")

_STOP: Final = ord(".")
_BINUNICODE: Final = ord("X")

_OPERATIONS: Final[dict[int, Callable[[_Machine], object]]] = {
    0x80: _Machine.skip_protocol,
    0x95: lambda machine: machine.take(8),  # FRAME: how the writer grouped its output
    ord("("): lambda machine: machine.push(_MARK),
    ord("0"): lambda machine: machine.pop(),
    ord("1"): _Machine.pop_to_mark,
    # Values.
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push_value(machine.number(_INT32)),
    ord("K"): lambda machine: machine.push_value(machine.number(_UINT8)),
    ord("M"): lambda machine: machine.push_value(machine.number(_UINT16)),
    0x8A: lambda machine: machine.push_value(
        int.from_bytes(machine.take(machine.number(_UINT8)), "little", signed=True)
    ),
    ord("G"): lambda machine: machine.push_value(machine.number(_FLOAT64)),
    _BINUNICODE: lambda machine: machine.push(machine.text(machine.number(_UINT32))),
    0x8C: lambda machine: machine.push(machine.text(machine.number(_UINT8))),
    0x8D: lambda machine: machine.push(machine.text(machine.number(_UINT64))),
    ord("T"): lambda machine: machine.push(machine.text(machine.number(_UINT32))),  # text of Python 2
    ord("U"): lambda machine: machine.push(machine.text(machine.number(_UINT8))),
    ord("B"): lambda machine: machine.push_value(machine.take(machine.number(_UINT32))),
    ord("C"): lambda machine: machine.push_value(machine.take(machine.number(_UINT8))),
    # Containers.
    ord(")"): lambda machine: machine.push(()),
    ord("]"): lambda machine: machine.push_container([]),
    ord("}"): lambda machine: machine.push_container({}),
    0x8F: lambda machine: machine.push_container([]),  # EMPTY_SET
    ord("t"): lambda machine: machine.push_container(tuple(machine.items_to_mark())),
    ord("l"): lambda machine: machine.push_container(machine.items_to_mark()),
    ord("d"): _dict_from_mark,
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("a"): _append_one,
    ord("e"): lambda machine: machine.append(machine.pop_to_mark()),
    0x90: lambda machine: machine.append(machine.pop_to_mark()),  # ADDITEMS
    ord("s"): _set_pair,
    ord("u"): lambda machine: machine.set_items(machine.pop_to_mark()),
    # The memo.
    ord("q"): lambda machine: machine.put(machine.number(_UINT8)),
    ord("r"): lambda machine: machine.put(machine.number(_UINT32)),
    0x94: _Machine.memoize,
    ord("h"): lambda machine: machine.get(machine.number(_UINT8)),
    ord("j"): lambda machine: machine.get(machine.number(_UINT32)),
    # Names and calls, kept as data.
    ord("c"): lambda machine: machine.named(machine.line(), machine.line()),
    0x93: lambda machine: machine.named(*_reversed_pair(machine)),
    ord("R"): lambda machine: machine.construct(*_reversed_pair(machine)),
    0x81: lambda machine: machine.construct(*_reversed_pair(machine)),
    ord("b"): _Machine.build,
    ord("Q"): _Machine.resolve_persistent,
}

_CODE_OPCODES: Final = frozenset({ord("i"), ord("o"), ord("P"), 0x82, 0x83, 0x84, 0x92, 0x97, 0x98})
"""Opcodes INST, OBJ, PERSID, NEWOBJ_EX, the EXT family and those of out-of-band buffers."""
