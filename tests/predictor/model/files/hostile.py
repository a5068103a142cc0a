"""Pickles written opcode by opcode, as no pickler writes them, and put wherever a file may hold a pickle."""

from __future__ import annotations

import faulthandler
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.predictor.builders import archive, members_of, saved

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PROTOCOL = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps({"little_endian": True}, protocol=2)
NO_KEYS = pickle.dumps([], protocol=2)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """End the process if the block takes longer: the computation of a hash heeds neither signals nor other threads."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def program(*operations: bytes, protocol: int = 2) -> bytes:
    """Return the pickle of these opcodes."""
    return b"".join((b"\x80", bytes([protocol]), *operations, b"."))


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(module: str, name: str) -> bytes:
    """Return the opcode GLOBAL for this name."""
    return f"c{module}\n{name}\n".encode()


def named_from_stack(module: str, name: str) -> bytes:
    """Return the opcode STACK_GLOBAL for this name, with its operands."""
    return text(module) + text(name) + b"\x93"


VOCAB = named("torchtext.vocab.vocab", "Vocab") + b")\x81"
ORDERED_DICT = named("collections", "OrderedDict")

# Each tuple holds the former one twice, and its hash is computed again from its items on each of the 2^200 paths.
HASH_BOMB = b"N\x85q\x00" + b"0h\x00h\x00\x86q\x00" * 200

# Positions in a pickle for an operation that pushes one value.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "alone": program,
    "in-a-list": lambda value: program(b"]", value, b"a"),
    "in-a-tuple": lambda value: program(b"(", value, value, b"t"),
    "as-a-value": lambda value: program(b"}", text("vocab"), value, b"s"),
    "as-a-key": lambda value: program(b"}(", value, b"Nu"),
    "in-a-set": lambda value: program(b"\x8f(", value, b"\x90", protocol=4),
    "in-an-ordered-dict": lambda value: program(ORDERED_DICT, b"]", text("k"), value, b"\x86a\x85R"),
    "as-state": lambda value: program(VOCAB, value, b"b"),
    "in-state": lambda value: program(VOCAB, b"}", text("vocab"), value, b"sb"),
    "as-state-of-a-dictionary": lambda value: program(ORDERED_DICT, b")R", value, b"b"),
    "as-an-argument": lambda value: program(ORDERED_DICT, value, b"\x85R"),
    "as-a-persistent-id": lambda value: program(value, b"Q"),
    "thrown-away": lambda value: program(value, b"0", text("a"), b"\x85"),
    "in-the-memo": lambda value: program(value, b"q\x000N"),
}


def in_zip(data: bytes) -> bytes:
    return archive([("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")])


def legacy(*, system: bytes = SYSTEM, value: bytes = NO_KEYS, keys: bytes = NO_KEYS, storages: bytes = b"") -> bytes:
    """Return the container of torch before 1.6."""
    return MAGIC + PROTOCOL + system + value + keys + storages


# Positions in a file for a pickle.
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data,
    "zip": in_zip,
    "legacy": lambda data: legacy(value=data),
    "legacy-protocol": lambda data: MAGIC + data,
    "legacy-system": lambda data: legacy(system=data),
}


def with_pickle(value: object, change: Callable[[bytes], bytes]) -> bytes:
    """Return the file that torch.save writes for ``value``, with its pickle changed."""
    members = members_of(saved(value))
    members["data.pkl"] = change(members["data.pkl"])
    return archive(members.items())
