"""Recognizes files of other formats by their first bytes, so that a refusal can say what was found.

The signatures are those that the formats' own documents give.
"""

from __future__ import annotations

from typing import Final

_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"BZh", "compressed with bzip2; unpack it first"),
    (0, b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "a file of HDF5, as Keras writes; save it with torch.save"),
    (0, b"\x93NUMPY", "an array of NumPy; save it with torch.save"),
    (0, b"GGUF", "a file of GGUF; save it with torch.save"),
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS; fetch the file itself with git lfs pull"),
)
_BEGINNING: Final = 512
_PICKLE: Final = 0x80
_SAFETENSORS_HEADER: Final = 8
_CONTROL: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f")


def kind_of(data: bytes) -> str | None:
    """Return what a file seems to be that is neither a zip archive nor a pickle, and what to do; ``None`` if unknown.

    The result continues the sentence "model.pth seems to be". Advice follows a semicolon.
    """
    if data[:1] == bytes([_PICKLE]):
        return None
    for place, signature, kind in _SIGNATURES:
        if data.startswith(signature, place):
            return kind
    if _is_safetensors(data):
        return "a file of safetensors; save it with torch.save"
    # ir_version and producer_name, the first fields of ONNX's ModelProto.
    if data[:1] == b"\x08" and data[2:3] == b"\x12":
        return "a model of ONNX; save the state_dict with torch.save"
    return _kind_of_text(data)


def _is_safetensors(data: bytes) -> bool:
    size = int.from_bytes(data[:_SAFETENSORS_HEADER], "little")
    begins = data[_SAFETENSORS_HEADER : _SAFETENSORS_HEADER + 1] == b"{"
    return begins and 2 <= size <= len(data) - _SAFETENSORS_HEADER


def _kind_of_text(data: bytes) -> str | None:
    beginning = data[:_BEGINNING]
    if not beginning.strip() or not _CONTROL.isdisjoint(beginning) or not _is_utf8(beginning):
        return None
    start = beginning.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page; fetch the file itself"
    if start.startswith((b"{", b"[")):
        return "JSON; save the object with torch.save"
    if start[:1] in b"(cilI" and data.rstrip()[-1:] == b".":
        return "a pickle of protocol 0; save it with torch.save"
    return "plain text; save the object with torch.save"


def _is_utf8(beginning: bytes) -> bool:
    try:
        beginning.decode()
    except UnicodeDecodeError as error:
        # The last character may be incomplete.
        return len(beginning) == _BEGINNING and error.start >= _BEGINNING - 3
    return True
