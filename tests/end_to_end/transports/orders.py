"""Orders of callers to the service under test, and its answers: JSON in ``google.protobuf.StringValue``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Order:
    """Instructions to the servicer for one call; streams take them from their first message."""

    text: str = ""
    name: str = ""
    """Name of the call in the notebook."""
    times: int = 1
    """Number of messages in a streamed answer."""
    ballast: str = ""
    """Text that makes the request large."""
    size: int = 0
    """Number of characters that make each answer large."""
    initial: Metadata = ()
    trailing: Metadata = ()
    abort: tuple[str, str] | None = None
    code: str = ""
    details: str = ""
    gzip: bool = False
    wait: str = ""
    """Name that must be in the notebook before the servicer continues."""
    notes: str = ""
    """Name to write into the notebook; any message of a stream may have one."""
    fails: bool = False

    def to_wire(self) -> bytes:
        told = {key: value for key, value in asdict(self).items() if value != getattr(Order, key)}
        for key in ("initial", "trailing"):
            if key in told:
                told[key] = plain_metadata(told[key])
        return wrapped(told)

    @classmethod
    def from_wire(cls, message: bytes) -> Order:
        told = unwrapped(message)
        for key in ("initial", "trailing"):
            told[key] = metadata_of_plain(told.get(key, ()))
        return cls(**told)


@dataclass(frozen=True)
class Echo:
    """One message of an answer: the call as the servicer saw it."""

    text: str = ""
    texts: list[str] = field(default_factory=list)
    """Texts of all messages of the request, if it is a stream."""
    metadata: Metadata = ()
    remaining: float | None = None
    """Time until the deadline, in seconds."""
    names: tuple[str, ...] = ()
    """Names in the caller's certificate."""
    ballast: str = ""

    def to_wire(self) -> bytes:
        return wrapped(asdict(self) | {"metadata": plain_metadata(self.metadata)})

    @classmethod
    def from_wire(cls, message: bytes) -> Echo:
        told = unwrapped(message)
        return cls(
            **told | {"metadata": metadata_of_plain(told.get("metadata", ())), "names": tuple(told.get("names", ()))}
        )


def wrapped(content: Any) -> bytes:
    return StringValue(value=json.dumps(content)).SerializeToString()


def unwrapped(message: bytes) -> Any:
    # grpcio sends an empty message with a status that was set, and clients may read that message.
    return json.loads(StringValue.FromString(message).value or "{}")


def plain_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[list[Any]]:
    return [
        [key, value if isinstance(value, str) else {"base64": base64.b64encode(value).decode()}]
        for key, value in metadata
    ]


def metadata_of_plain(metadata: Iterable[Any]) -> Metadata:
    return tuple(
        (key, value if isinstance(value, str) else base64.b64decode(value["base64"])) for key, value in metadata
    )
