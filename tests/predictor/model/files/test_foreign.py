from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from predictor.model.files.tensors import read_state_dict
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import ForbiddenPickle, InvalidModelFile
from tests.predictor.builders import saved, state_dict
from tests.serving.refusals import refused

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


KINDS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "text": (b"<unk>\nbalance\nmy\n", "plain text"),
    "text of other languages": ("größe\n日本語\n".encode() * 100, "plain text"),
    "text like code": (b"cat\ndog\n", "plain text"),
    "json": (b'["<unk>", "balance"]', "JSON"),
    "a web page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "git lfs pull"),
    "gzip": (gzip.compress(b"x"), "gzip"),
    "bzip2": (bz2.compress(b"x"), "bzip2"),
    "xz": (lzma.compress(b"x"), "xz"),
    "tar": (tarred(), "a tar archive"),
    "safetensors": (struct.pack("<Q", len(HEADER)) + HEADER + bytes(4), "safetensors"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "onnx": (b"\x08\x07\x12\x07pytorch" + bytes(100), "ONNX"),
    "numpy": (array(), "NumPy"),
    "archive of numpy": (zipped("w.npy"), "an archive of NumPy"),
    "archive of torchserve": (zipped("model.pth", "MAR-INF/MANIFEST.json"), "intentctl import"),
    "another archive": (zipped("a/b"), r"not written by torch\.save"),
    "an old pickle": (pickle.dumps(["a"], 0), "protocol 0"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("read", "name"), [(read_state_dict, "model.pth"), (read_vocabulary, "vocab.pth")])
def test_a_refusal_says_which_file_is_wrong_and_what_it_seems_to_be(
    read: Callable[[bytes], object], name: str, kind: str
) -> None:
    data, words = KINDS[kind]
    with refused(InvalidModelFile, match=words) as caught:
        read(data)
    assert not isinstance(caught.value, ForbiddenPickle), "nobody has tried to run code"
    assert str(caught.value).startswith(f"{name} ")


def test_a_whole_module_is_named_as_such() -> None:
    with refused(ForbiddenPickle, match=r"model\.pth requests code, as a model that was saved whole does"):
        read_state_dict(saved(nn.Linear(2, 2)))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-1.6"])
def test_damage_names_its_file_whatever_the_container(legacy: bool) -> None:
    data = saved(state_dict(5, 3, 2), legacy=legacy)
    with refused(InvalidModelFile, match=r"^model\.pth .*damaged"):
        read_state_dict(data[: len(data) // 2])
    words = saved(["<unk>", "a"], legacy=legacy)
    with refused(InvalidModelFile, match=r"^vocab\.pth .*damaged"):
        read_vocabulary(words[: len(words) // 2])
