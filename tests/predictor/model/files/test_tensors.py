from __future__ import annotations

import io
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from predictor.model.files.tensors import read_state_dict
from serving.domain.errors import ForbiddenPickle, InvalidModelFile
from tests.conftest import SHARED, shared
from tests.predictor.builders import archive, members_of, saved, state_dict
from tests.predictor.model.files.hostile import (
    HASH_BOMB,
    ends_within,
    in_zip,
    legacy,
    named,
    program,
    text,
    with_pickle,
)
from tests.serving.refusals import refused

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
BOTH = pytest.mark.parametrize("old", [False, True], ids=["zip", "before-1.6"])


def assert_as_torch_reads_it(data: bytes) -> None:
    expected = torch.load(io.BytesIO(data), weights_only=True)
    found = read_state_dict(data)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert torch.equal(torch.from_numpy(array), expected[name].detach().float()), name


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


# Files that are read.


@BOTH
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 4), (5,), (4, 6), (2, 3, 4), (1, 1)], ids=str)
def test_a_tensor_has_the_values_that_torch_reads(dtype: torch.dtype, shape: tuple[int, ...], old: bool) -> None:
    assert_as_torch_reads_it(saved({"w": random(*shape, dtype=dtype)}, legacy=old))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.T,
    "row": lambda t: t[3],
    "column": lambda t: t[:, 2],
    "rows": lambda t: t[2:5],
    "every-other": lambda t: t[::2, 1::3],
    "expanded": lambda t: t[:1].expand(7, -1),
    "overlapping": lambda t: t.flatten().unfold(0, 4, 1),
    "end": lambda t: t[-1:, -1:],
    "permuted": lambda t: t.reshape(2, 4, 9).permute(2, 0, 1),
    "parameter": nn.Parameter,
    "parameter-transposed": lambda t: nn.Parameter(t).T.detach(),
}


@BOTH
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_view_has_the_values_that_torch_reads(layout: str, dtype: torch.dtype, old: bool) -> None:
    assert_as_torch_reads_it(saved({"w": LAYOUTS[layout](random(8, 9, dtype=dtype))}, legacy=old))


@BOTH
def test_tensors_that_share_a_storage_are_read_each(old: bool) -> None:
    shared_tensor = random(6, 6)
    views = {"all": shared_tensor, "again": shared_tensor, "part": shared_tensor[2:4], "turned": shared_tensor.T}
    assert_as_torch_reads_it(saved(views, legacy=old))


@BOTH
def test_what_a_module_gives_is_read_with_its_metadata(old: bool) -> None:
    module = nn.Sequential(nn.EmbeddingBag(5, 4), nn.Linear(4, 3))
    state = module.state_dict()
    assert isinstance(state, OrderedDict)
    assert hasattr(state, "_metadata")
    assert_as_torch_reads_it(saved(state, legacy=old))
    assert_as_torch_reads_it(saved(dict(module.named_parameters()), legacy=old))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(protocol: int) -> None:
    buffer = io.BytesIO()
    torch.save(state_dict(30, 8, 5, 4), buffer, pickle_protocol=protocol)
    # torch itself reads only some of these protocols without running code.
    found = read_state_dict(buffer.getvalue())
    assert all(np.array_equal(found[name], value) for name, value in state_dict(30, 8, 5, 4).items())


def test_the_weights_of_the_book_are_read() -> None:
    data = shared("seed-model/1/model.pth").read_bytes()
    assert_as_torch_reads_it(data)
    assert set(read_state_dict(data)) == {"embedding.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


def test_what_is_read_does_not_keep_the_file() -> None:
    array = read_state_dict(saved({"w": random(4, 4)}))["w"]
    assert array.base is None or array.base.nbytes == array.nbytes


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 3.4028235e38, -3.4028235e38, 1e-300])
def test_the_ends_of_the_range_are_read(value: float) -> None:
    assert_as_torch_reads_it(saved({"w": torch.tensor([value], dtype=torch.float64)}))


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.sampled_from(KINDS),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80)
def test_any_view_of_any_shape_is_read_as_torch_reads_it(
    shape: list[int], dtype: torch.dtype, old: bool, chance: Any
) -> None:
    tensor = random(*shape, dtype=dtype)
    order = list(range(len(shape)))
    chance.shuffle(order)
    cut = tuple(slice(chance.randint(0, 2), None, chance.randint(1, 2)) for _ in shape)
    assert_as_torch_reads_it(saved({"w": tensor[cut].permute(order)}, legacy=old))


# Files that are refused.


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def sparse_rows() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(2).to_sparse_csr()


def typed_storage() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.FloatStorage(2)  # type: ignore[no-untyped-call]


NOT_DENSE: dict[str, Callable[[], object]] = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "sparse-rows": sparse_rows,
    "quantized": quantized,
    "nested": nested,
    "meta": lambda: torch.ones(2, device="meta"),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "int64": lambda: torch.ones(2, dtype=torch.int64),
    "int8": lambda: torch.ones(2, dtype=torch.int8),
    "bool": lambda: torch.ones(2, dtype=torch.bool),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    "text": lambda: "weights",
    "number": lambda: 1.0,
    "nothing": lambda: None,
    "list": lambda: [torch.ones(2)],
    "dictionary": lambda: {"w": torch.ones(2)},
    "shape": lambda: torch.Size([2]),
    "storage": typed_storage,
    "dtype": lambda: torch.float32,
    "numpy": lambda: np.ones(2),
}


@BOTH
@pytest.mark.parametrize("kind", NOT_DENSE)
def test_what_is_no_dense_tensor_of_real_numbers_is_refused(kind: str, old: bool) -> None:
    for state in ({"w": NOT_DENSE[kind]()}, {"good": torch.ones(1), "w": NOT_DENSE[kind]()}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = saved(state, legacy=old)
        with refused(InvalidModelFile):
            read_state_dict(data)


NO_STATE_DICTS: dict[str, object] = {
    "empty": {},
    "empty-ordered": OrderedDict(),
    "list": [torch.ones(1)],
    "tensor": torch.ones(1),
    "text": "x",
    "numbered": {0: torch.ones(1)},
    "unnamed": {None: torch.ones(1)},
    "paired": {("a", "b"): torch.ones(1)},
}


@BOTH
@pytest.mark.parametrize("kind", NO_STATE_DICTS)
def test_what_is_no_state_dict_is_refused(kind: str, old: bool) -> None:
    with refused(InvalidModelFile):
        read_state_dict(saved(NO_STATE_DICTS[kind], legacy=old))


@BOTH
def test_a_whole_module_is_forbidden(old: bool) -> None:
    for value in (nn.Linear(2, 2), {"fc1": nn.Linear(2, 2)}):
        with refused(ForbiddenPickle):
            read_state_dict(saved(value, legacy=old))


@BOTH
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_weights_that_are_not_finite_are_refused(value: float, dtype: torch.dtype, old: bool) -> None:
    weights = torch.zeros(3, 3, dtype=dtype)
    weights[2, 1] = value
    with refused(InvalidModelFile, match="not finite"):
        read_state_dict(saved({"w": weights}, legacy=old))


@pytest.mark.parametrize("value", [1e60, -1e60, 3.5e38])
def test_weights_that_are_not_finite_as_float32_are_refused(value: float) -> None:
    with refused(InvalidModelFile, match="not finite"):
        read_state_dict(saved({"w": torch.tensor([0.0, value], dtype=torch.float64)}))


def test_a_signalling_nan_is_refused() -> None:
    members = members_of(saved({"w": torch.ones(1, dtype=torch.float64)}))
    members["data/0"] = struct.pack("<Q", 0x7FF0_0000_0000_0001)
    with refused(InvalidModelFile, match="not finite"):
        read_state_dict(archive(members.items()))


# Tensors that torch would not write.


def number(value: int) -> bytes:
    length = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def storage(count: int = 4, kind: str = "FloatStorage", key: bytes = text("0")) -> bytes:
    return b"(" + text("storage") + named("torch", kind) + key + text("cpu") + number(count) + b"tQ"


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, of: bytes = b"") -> bytes:
    sizes, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    arguments = (
        b"(" + (of or storage()) + number(offset) + sizes + steps + b"\x89" + named("collections", "OrderedDict")
    )
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b")RtR"


def weights_in_zip(*tensors: bytes) -> bytes:
    pickled = program(b"}", *(text(f"w{i}") + value + b"s" for i, value in enumerate(tensors)))
    return archive([("data.pkl", pickled), ("data/0", struct.pack("<4f", 1, 2, 3, 4))])


def weights_in_legacy(*tensors: bytes, keys: bytes = b"]" + text("0") + b"a", count: int = 4) -> bytes:
    pickled = program(b"}", *(text(f"w{i}") + value + b"s" for i, value in enumerate(tensors)))
    return legacy(value=pickled, keys=program(keys), storages=struct.pack("<q4f", count, 1, 2, 3, 4))


def test_the_tensors_written_here_are_read_where_they_are_proper() -> None:
    for write in (weights_in_zip, weights_in_legacy):
        arrays = read_state_dict(write(tensor((2, 2), (2, 1)), tensor((3,), (1,), 1), tensor((0,), (1,), 9)))
        assert arrays["w0"].tolist() == [[1, 2], [3, 4]]
        assert arrays["w1"].tolist() == [2, 3, 4]
        assert arrays["w2"].tolist() == []


IMPROPER = {
    "10^12-elements": tensor((10**6, 10**6), (0, 0)),
    "10^12-elements-in-a-row": tensor((10**12,), (0,)),
    "2^80-elements": tensor((1 << 40, 1 << 40), (0, 0)),
    "negative-stride": tensor((4,), (-1,), 3),
    "negative-offset": tensor((1,), (1,), -1),
    "negative-shape": tensor((-1,), (1,)),
    "two-negative-shapes": tensor((-2, -2), (2, 1)),
    "beyond-the-end": tensor((5,), (1,)),
    "beyond-the-end-by-offset": tensor((2,), (1,), 3),
    "beyond-the-end-by-stride": tensor((2,), (4,)),
    "beyond-the-end-by-2^64": tensor((2,), (1 << 64,)),
    "offset-2^64": tensor((1,), (1,), 1 << 64),
    "stride-too-many": tensor((4,), (1, 1)),
    "stride-too-few": tensor((2, 2), (1,)),
    "stride-that-nothing-takes": tensor((1,), (1 << 70,)),
    "size-of-an-empty-tensor": tensor((0, 1 << 70), (1, 1)),
    "100-dimensions": tensor((1,) * 100, (1,) * 100),
    "storage-count-too-large": tensor((4,), (1,), of=storage(count=5)),
    "storage-count-2^61": tensor((4,), (1,), of=storage(count=1 << 61)),
    "storage-count-negative": tensor((4,), (1,), of=storage(count=-4)),
    "storage-of-another-size": tensor((4,), (1,), of=storage(kind="DoubleStorage")),
    "storage-unknown": tensor((4,), (1,), of=storage(key=text("7"))),
    "storage-outside": tensor((4,), (1,), of=storage(key=text("../data.pkl"))),
    "storage-key-a-number": tensor((4,), (1,), of=storage(key=number(0))),
    "storage-of-quantized": tensor((4,), (1,), of=b"(" + text("storage") + b"NNNNtQ"),
    "no-storage": tensor((4,), (1,), of=b"N"),
    "no-arguments": named("torch._utils", "_rebuild_tensor_v2") + b")R",
    "parameter-of-nothing": named("torch._utils", "_rebuild_parameter") + b")R",
    "parameter-of-a-parameter": named("torch._utils", "_rebuild_parameter")
    + named("torch._utils", "_rebuild_parameter")
    + tensor((4,), (1,))
    + b"\x85R\x85R",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("write", [weights_in_zip, weights_in_legacy], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("kind", IMPROPER)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(kind: str, write: Callable[..., bytes]) -> None:
    with refused(InvalidModelFile):
        read_state_dict(write(IMPROPER[kind]))


def test_many_tensors_over_a_few_bytes_are_refused() -> None:
    each = tensor((1000,), (0,))
    assert read_state_dict(weights_in_zip(tensor((200,), (0,))))["w0"].tolist() == [1.0] * 200
    with refused(InvalidModelFile, match="more elements than it has bytes"):
        read_state_dict(weights_in_zip(*[each] * 40))


@pytest.mark.parametrize("count", [5, 1000, 1 << 20])
@pytest.mark.parametrize("first", [True, False])
def test_one_storage_that_is_told_with_two_sizes_is_refused(count: int, first: bool) -> None:
    # Otherwise the larger tensor would be laid over memory behind the file.
    honest, lying = tensor((4,), (1,)), tensor((count // 5, 5), (5, 1), of=storage(count=count))
    tensors = [lying, honest] if first else [honest, lying]
    for write in (weights_in_zip, weights_in_legacy):
        with refused(InvalidModelFile):
            read_state_dict(write(*tensors))
    doubles = tensor((4,), (1,), of=storage(kind="DoubleStorage"))
    with refused(InvalidModelFile):
        read_state_dict(weights_in_legacy(doubles, honest))


@pytest.mark.parametrize(
    "keys",
    [
        b"]",
        b"]" + text("1") + b"a",
        b"]K\x00a",
        b"]Na",
        b"}",
        b"N",
        text("0"),
        b"](" + text("0") + text("7") + b"e",
        b"](" + text("0") + text("0") + b"e",
        b"]" + HASH_BOMB + b"a",
    ],
)
def test_wrong_keys_of_storages_are_refused(keys: bytes) -> None:
    with ends_within(10), refused(InvalidModelFile):
        read_state_dict(weights_in_legacy(tensor((4,), (1,)), keys=keys))


@pytest.mark.parametrize("count", [3, 5, -1, 1 << 62])
def test_a_storage_that_contradicts_its_reference_is_refused(count: int) -> None:
    with refused(InvalidModelFile):
        read_state_dict(weights_in_legacy(tensor((4,), (1,)), count=count))


def test_a_reference_to_data_in_a_file_that_has_none_is_refused() -> None:
    with refused(InvalidModelFile):
        read_state_dict(program(b"}", text("w"), tensor((4,), (1,)), b"s"))
    with refused(InvalidModelFile):
        read_state_dict(in_zip(program(b"}", text("w"), tensor((4,), (1,)), b"s")))


@pytest.mark.parametrize("name", ["_rebuild_tensor", "_rebuild_sparse_tensor", "_rebuild_wrapper_subclass"])
def test_other_ways_to_make_tensors_are_forbidden(name: str) -> None:
    def change(pickled: bytes) -> bytes:
        return pickled.replace(b"_rebuild_tensor_v2", name.encode())

    with refused(ForbiddenPickle):
        read_state_dict(with_pickle({"w": torch.ones(2)}, change))


# Damage.


def survives(data: bytes) -> None:
    try:
        arrays = read_state_dict(data)
    except InvalidModelFile:
        return
    assert all(np.isfinite(array).all() for array in arrays.values())


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    survives(data)
    survives(b"PK\x03\x04" + data)
    survives(legacy(value=data))


FILES: dict[str, Callable[[], bytes]] = {
    "zip": lambda: saved(state_dict(5, 3, 2)),
    "before-1.6": lambda: saved(state_dict(5, 3, 2), legacy=True),
    "views": lambda: saved({"a": torch.ones(4, 4).T, "b": nn.Parameter(torch.ones(2))}, legacy=True),
    "book": (SHARED / "seed-model/1/model.pth").read_bytes,
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_read(name: str) -> None:
    if name == "book":
        shared("seed-model/1/model.pth")
    whole = FILES[name]()
    # Pickles and directories are at the beginning and the end; the bytes between them are numbers.
    places = st.integers(0, min(1500, len(whole) - 1)) | st.integers(max(0, len(whole) - 1500), len(whole) - 1)

    @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4), places, st.integers(-8, 8))
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    def holds(changes: list[tuple[int, int]], place: int, shift: int) -> None:
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        survives(bytes(data))
        data[place : place + max(0, -shift)] = bytes(max(0, shift))
        survives(bytes(data))
        survives(whole[:place])

    holds()
