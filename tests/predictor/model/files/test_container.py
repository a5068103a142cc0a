from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib

import pytest
import torch

from predictor.model.files.container import Storage, open_torch_file
from predictor.model.files.pickle_reader import Global
from predictor.model.files.tensors import TENSOR_GLOBALS, read_state_dict
from predictor.model.vocabulary import read_vocabulary
from serving.domain.errors import InvalidModelFile
from tests.predictor.builders import archive, members_of, saved
from tests.predictor.model.files.hostile import MAGIC, PROTOCOL, SYSTEM, legacy
from tests.serving.refusals import refused

WEIGHTS = {"w": torch.arange(100, dtype=torch.float32), "v": torch.ones(3)}
LIST = pickle.dumps(["a", "b"], 2)
FLOATS = Global("torch", "FloatStorage")

CONTAINERS = {"zip": saved(WEIGHTS), "before-1.6": saved(WEIGHTS, legacy=True)}


def open_list(data: bytes) -> object:
    return open_torch_file(data).read(())


# Reading.


@pytest.mark.parametrize(
    "data", [LIST, archive([("data.pkl", LIST)]), legacy(value=LIST)], ids=["bare", "zip", "legacy"]
)
def test_each_container_gives_its_object(data: bytes) -> None:
    assert open_list(data) == ["a", "b"]


@pytest.mark.parametrize("stem", ["archive/", "model/", "a b/", "日本/", "vocab.pth/"])
def test_the_folder_of_an_archive_may_have_any_name(stem: str) -> None:
    assert open_list(archive([("data.pkl", LIST), ("version", b"3\n")], stem=stem)) == ["a", "b"]


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_a_storage_is_the_bytes_that_were_saved(data: bytes) -> None:
    file = open_torch_file(data)
    entries = file.read(TENSOR_GLOBALS)
    for name, tensor in WEIGHTS.items():
        assert bytes(file.storage(entries[name].arguments[0])) == tensor.numpy().tobytes()


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_a_storage_that_is_not_there_is_refused(data: bytes) -> None:
    file = open_torch_file(data)
    file.read(TENSOR_GLOBALS)
    for key in ("none", "", "../data.pkl", "\0"):
        with refused(InvalidModelFile):
            file.storage(Storage(FLOATS, key, 1))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("legacy_container", [False, True], ids=["zip", "before-1.6"])
def test_many_tensors_over_one_large_storage_do_not_read_it_many_times(legacy_container: bool) -> None:
    large = torch.ones(4_000_000)
    views = {f"w{number}": large[number : number + 1] for number in range(5000)}
    assert len(read_state_dict(saved(views, legacy=legacy_container))) == 5000


@pytest.mark.timeout(10)
def test_many_storages_are_found_in_linear_time() -> None:
    state = {f"w{number}": torch.ones(1) for number in range(5000)}
    assert len(read_state_dict(saved(state, legacy=True))) == 5000


# Archives that are refused.


def test_a_compressed_member_is_refused() -> None:
    with refused(InvalidModelFile, match="compressed"):
        open_torch_file(archive([("data.pkl", LIST)], compression=zipfile.ZIP_DEFLATED))
    with refused(InvalidModelFile, match="compressed"):
        open_torch_file(archive([("data.pkl", LIST)], compression=zipfile.ZIP_LZMA))


@pytest.mark.timeout(30)
def test_a_file_that_inflates_to_256_mebibytes_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    data = bytearray(archive([("data.pkl", LIST), ("data/0", packed)]))
    # Both headers declare the stored bytes as deflated.
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.rindex(header)
        data[at + place : at + place + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 19
    with refused(InvalidModelFile, match="compressed"):
        open_torch_file(bytes(data))


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_two_members_of_one_name_are_refused(name: str) -> None:
    members = [*members_of(saved(WEIGHTS)).items(), (name, b"another")]
    for order in (members, members[::-1]):
        with refused(InvalidModelFile, match="two members with the same name"):
            open_torch_file(archive(order))


def test_names_that_are_one_name_to_the_reader_are_refused() -> None:
    data = archive([("data.pkl", LIST), ("data.pklXother", LIST)]).replace(b"data.pklXother", b"data.pkl\0other")
    with refused(InvalidModelFile):
        open_list(data)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "other/data.pkl", "data.pkl"])
def test_members_outside_of_the_folder_are_refused(name: str) -> None:
    with refused(InvalidModelFile, match=r"not written by torch\.save"):
        open_torch_file(archive([("archive/data.pkl", LIST), (name, LIST)], stem=""))


@pytest.mark.parametrize("members", [[], [("version", b"3")], [("data/data.pkl", b"")], [("DATA.PKL", LIST)]], ids=str)
def test_an_archive_without_an_object_is_refused(members: list[tuple[str, bytes]]) -> None:
    with refused(InvalidModelFile):
        open_list(archive(members))


def test_a_torchscript_archive_is_refused_by_its_name() -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with refused(InvalidModelFile, match="TorchScript"):
            open_torch_file(archive([("data.pkl", LIST), ("constants.pkl", LIST)], compression=compression))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_of_torch_jit_save_is_refused_by_its_name() -> None:
    buffer = io.BytesIO()
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2))  # type: ignore[no-untyped-call]
    torch.jit.save(scripted, buffer)
    for reader in (read_vocabulary, read_state_dict):
        with refused(InvalidModelFile, match="TorchScript"):
            reader(buffer.getvalue())


@pytest.mark.parametrize("order", [b"big", b"", b"LITTLE", b"little\n"])
def test_a_big_endian_archive_is_refused(order: bytes) -> None:
    members = members_of(saved(WEIGHTS)) | {"byteorder": order}
    with refused(InvalidModelFile, match="big-endian"):
        read_state_dict(archive(members.items()))


def test_an_archive_that_tells_no_order_of_bytes_is_little_endian() -> None:
    members = {name: content for name, content in members_of(saved(WEIGHTS)).items() if name != "byteorder"}
    assert read_state_dict(archive(members.items())).keys() == WEIGHTS.keys()


def test_a_flipped_bit_anywhere_in_a_member_is_refused() -> None:
    data = saved(WEIGHTS)
    for name in ("data.pkl", "data/0", "data/1"):
        content = members_of(data)[name]
        start = data.index(content)
        for place in range(start, start + len(content), 5):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            with refused(InvalidModelFile):
                read_state_dict(bytes(changed))


def test_members_that_overlap_are_refused() -> None:
    # A thousand entries of the directory that all lead to the same bytes.
    single = archive([("data.pkl", LIST), ("data/0", bytes(10_000))])
    directory, end = single.index(b"PK\x01\x02"), single.rindex(b"PK\x05\x06")
    last = single.rindex(b"PK\x01\x02")
    entries = [single[last:end].replace(b"data/0", f"{number:06d}".encode()) for number in range(1000)]
    body = single[:directory] + single[directory:last] + b"".join(entries)
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1001, 1001, len(body) - directory, directory, 0)
    with refused(InvalidModelFile):
        open_torch_file(body + record)


@pytest.mark.parametrize("data", CONTAINERS.values(), ids=CONTAINERS.keys())
@pytest.mark.parametrize("cut", [0, 1, 100, 0.5, -30, -1])
def test_a_file_that_is_cut_off_is_refused(data: bytes, cut: float) -> None:
    end = len(data) // 2 if cut == 0.5 else int(cut)
    with refused(InvalidModelFile):
        read_state_dict(data[:end])


# The container before torch 1.6.


@pytest.mark.parametrize(
    "data",
    [
        MAGIC,
        MAGIC + PROTOCOL,
        MAGIC + PROTOCOL + SYSTEM,
        MAGIC + pickle.dumps(1002, 2) + SYSTEM + LIST + LIST,
        MAGIC + pickle.dumps("1001", 2) + SYSTEM + LIST + LIST,
        MAGIC + MAGIC,
    ],
    ids=["magic", "protocol", "system", "later-protocol", "text-protocol", "magic-twice"],
)
def test_a_damaged_beginning_is_refused(data: bytes) -> None:
    with refused(InvalidModelFile):
        open_list(data)
