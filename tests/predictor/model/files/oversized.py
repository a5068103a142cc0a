"""Files of model and vocabulary that ask for far more memory or processor time than they have bytes, by name."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable, Iterable

import torch

from predictor.model.files.allowance import Allowance
from predictor.model.files.tensors import StateDict
from predictor.model.layers import LayerShapes
from predictor.model.loader import WORKSPACE
from predictor.model.vocabulary import read_vocabulary
from tests.predictor.builders import archive, members_of, saved, state_dict
from tests.predictor.model.files.hostile import in_zip, named, program, text

ROWS = 30
"""Rows of the network whose vocabulary is read."""
TOKENS = 1 << 18
"""Tokens of a large vocabulary."""


def read_weights(data: bytes) -> None:
    LayerShapes.of(StateDict(data).shapes)


def read_tokens(data: bytes) -> None:
    """Read a vocabulary as the loader does for a network of few rows."""
    read_vocabulary(data, Allowance(WORKSPACE + 10 * len(data), most_items=ROWS + 1))


def with_many_members(data: bytes, count: int, *, zip64: bool = True) -> bytes:
    """Return the archive with ``count`` empty members besides its own, which share one local header."""
    body = bytearray()
    directory: list[bytes] = []

    def local(name: bytes, content: bytes) -> int:
        begin = len(body)
        sizes = (zlib.crc32(content), len(content), len(content), len(name), 0)
        body.extend(struct.pack("<4s5HIIIHH", b"PK\3\4", 20, 0, 0, 0, 0x21, *sizes) + name + content)
        return begin

    def central(name: bytes, content: bytes, begin: int) -> None:
        sizes = (zlib.crc32(content), len(content), len(content), len(name))
        entry = struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0x21, *sizes, 0, 0, 0, 0, 0, begin)
        directory.append(entry + name)

    for name, content in members_of(data).items():
        path = f"archive/{name}".encode()
        central(path, content, local(path, content))
    begin = local(b"archive/z", b"")
    for number in range(count):
        central(f"archive/{number:x}".encode(), b"", begin)
    listed = b"".join(directory)
    start, entries = len(body), len(directory)
    body += listed
    if zip64:
        record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(listed), start)
        body += record + struct.pack("<4sIQI", b"PK\6\7", 0, start + len(listed), 1)
        entries, size, start = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    else:
        size = len(listed)
    body += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries & 0xFFFF, entries & 0xFFFF, size, start, 0)
    return bytes(body)


def with_two_directories(data: bytes) -> bytes:
    """Return an archive whose zip64 record has another directory than the record that old readers see."""
    changed = with_many_members(data, 10)
    end = changed.rindex(b"PK\5\6")
    return changed[: end + 12] + struct.pack("<II", 60, 0) + changed[end + 20 :]


def with_member(name: str, content: bytes = b"") -> bytes:
    """Return a file of weights with one more member."""
    return archive([*members_of(weights()).items(), (name, content)])


def bottleneck(width: int) -> bytes:
    """Return weights of a few kilobytes that fold into a matrix of ``width`` times ``width``."""
    return saved(
        {
            "embedding.weight": torch.ones(1, width),
            "fc1.weight": torch.ones(1, width),
            "fc1.bias": torch.ones(1),
            "fc2.weight": torch.ones(width, 1),
            "fc2.bias": torch.ones(width),
        }
    )


def with_shape(size: bytes, count: int) -> bytes:
    """Return weights with a tensor of ``count`` dimensions, each of which is the number ``size``."""
    reference = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"
    shape = b"(" + size + b"q\x07" + b"h\x07" * (count - 1) + b"t"
    arguments = b"(" + reference + b"K\x00" + shape + shape + b"\x89}t"
    pickled = program(b"}", text("w"), named("torch._utils", "_rebuild_tensor_v2"), arguments, b"Rs")
    return archive([("data.pkl", pickled), ("data/0", bytes(16))])


def tokens(count: int = TOKENS) -> Iterable[str]:
    return (f"token{number:x}" for number in range(count))


def weights() -> bytes:
    return saved(state_dict(30, 8, 4))


MEMBERS = 200_000

WEIGHT_FILES: dict[str, Callable[[], bytes]] = {
    "directory": lambda: with_many_members(weights(), MEMBERS),
    "directory-of-old": lambda: with_many_members(weights(), 60_000, zip64=False),
    "two-directories": lambda: with_two_directories(weights()),
    "useless-member": lambda: with_member("extra"),
    "useless-storage": lambda: with_member("data/99", bytes(1 << 20)),
    "memo": lambda: in_zip(program(b"N" + b"\x94" * (1 << 22))),
    "far-memo": lambda: in_zip(program(b"N" + b"".join(b"r" + struct.pack("<I", n) for n in range(1 << 18)))),
    "marks": lambda: in_zip(program(b"(" * (1 << 24))),
    "nothings": lambda: in_zip(program(b"N" * (1 << 24))),
    "nested-tuples": lambda: in_zip(program(b")" + b"\x85" * (1 << 22))),
    "short-texts": lambda: in_zip(program(b"(" + b"\x8c\x02\xc3\xa9" * (1 << 20) + b"l")),
    "short-bytes": lambda: in_zip(program(b"(" + b"C\x01a" * (1 << 20) + b"l")),
    "floats": lambda: in_zip(program(b"(" + b"G\0\0\0\0\0\0\0\0" * (1 << 20) + b"l")),
    "wide-text": lambda: in_zip(
        program(b"X" + struct.pack("<I", (1 << 24) + 4) + b"a" * (1 << 24) + "\U0001f600".encode())
    ),
    "dictionary": lambda: saved(dict.fromkeys(tokens(), 1)),
    "many-dimensions": lambda: with_shape(b"\x8a\xff" + b"\x7f" * 255, 1 << 20),
    "deep": lambda: in_zip(program(b"]" * (1 << 18) + b"a" * ((1 << 18) - 1))),
    "legacy-keys": lambda: saved({"w": torch.ones(1)}, legacy=True)[:-30] + program(b"](" + b"N" * (1 << 22) + b"e"),
}
"""Files that are refused as weights."""


def legacy_vocabulary(*, itos: Iterable[str], stoi: Iterable[str], freqs: Iterable[str]) -> bytes:
    """Return a vocabulary of torchtext before 0.9, as its pickler writes it."""

    def body(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    def pairs(values: Iterable[str]) -> bytes:
        # Without the memo of the pickler, whose numbers would be used three times over.
        return b"}(" + b"".join(text(value) + b"K\x01" for value in values) + b"u"

    return program(
        named("torchtext.vocab", "Vocab"),
        b")\x81}(",
        text("freqs"),
        named("collections", "Counter"),
        pairs(freqs),
        b"\x85R",
        text("itos"),
        b"](" + b"".join(map(text, itos)) + b"e",
        text("stoi"),
        named("collections", "defaultdict"),
        body(()) + b"R(" + pairs(stoi)[2:],
        b"ub",
    )


VOCABULARY_FILES: dict[str, Callable[[], bytes]] = {
    "list": lambda: saved(list(tokens())),
    "list-in-one-go": lambda: program(b"](" + b"".join(map(text, tokens())) + b"e"),
    "list-of-protocol-4": lambda: pickle.dumps(list(tokens()), 4),
    "one-token-often": lambda: program(b"](" + text("a") + b"q\x00" + b"h\x00" * TOKENS + b"e"),
    "dictionary": lambda: saved({token: number for number, token in enumerate(tokens())}),
    "itos": lambda: legacy_vocabulary(itos=tokens(), stoi=["a"], freqs=[]),
    "directory": lambda: with_many_members(saved(["a"]), MEMBERS),
}
"""Files that are refused as the vocabulary of a network with few tokens."""
