"""Small files that were made to cost much, at a real predictor: what they take, and what other tenants notice."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import psutil
import pytest

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.residency_client import ask_residency
from tests.builders import reseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, running_service, transports
from tests.fakes.torchtext import fake_torchtext, modern_vocab
from tests.predictor.builders import saved

SAMPLE: Final = ROOT / "models" / "clinc150-banking"
DOCUMENT: Final = "what is my balance"
TENANTS: Final = 6
MEMBERS: Final = 300_000
TOKENS: Final = 450_000

MOST_BYTES: Final = 128 << 20
"""Bound on the growth of the predictor's peak memory: less than such a directory takes once it is parsed."""
MOST_PROCESSOR_SECONDS: Final = 10.0
"""Bound on the processor time of all loads of a test; each bomb took more than that before such files were bounded."""


def many_members(data: bytes, count: int) -> bytes:
    """Return an archive with the members of ``data`` and this many empty ones, which share one header."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member.filename.encode(), archive.read(member)) for member in archive.infolist()]
    out = io.BytesIO()
    directory: list[bytes] = []

    def put(name: bytes, content: bytes) -> int:
        offset = out.tell()
        facts = (zlib.crc32(content), len(content), len(content), len(name), 0)
        out.write(struct.pack("<4s5HIIIHH", b"PK\3\4", 20, 0, 0, 0, 0x21, *facts) + name + content)
        return offset

    def register(name: bytes, content: bytes, offset: int) -> None:
        facts = (zlib.crc32(content), len(content), len(content), len(name), 0, 0, 0, 0, 0, offset)
        directory.append(struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0x21, *facts) + name)

    for name, content in members:
        register(name, content, put(name, content))
    folder = members[0][0].partition(b"/")[0]
    empty = put(folder + b"/z", b"")
    for number in range(count):
        register(folder + b"/" + format(number, "x").encode(), b"", empty)
    start = out.tell()
    size = out.write(b"".join(directory))
    end = out.tell()
    entries = len(directory)
    out.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, start))
    out.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
    out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return out.getvalue()


def with_many_members(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        if name == "vocab.pth":
            # The sample's vocabulary is a pickle of the old form; torch.save writes archives.
            with fake_torchtext():
                path.write_bytes(saved(modern_vocab(("<unk>", "balance"), 0)))
        path.write_bytes(many_members(path.read_bytes(), MEMBERS))

    return change


def many_tokens(folder: Path) -> None:
    with fake_torchtext():
        vocabulary = modern_vocab(("<unk>", *(f"token{number}" for number in range(TOKENS))), 0)
        (folder / "vocab.pth").write_bytes(saved(vocabulary))


BOMBS: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "weights of many members": (with_many_members("model.pth"), "model.pth"),
    "a vocabulary of many members": (with_many_members("vocab.pth"), "vocab.pth"),
    "a vocabulary of many tokens": (many_tokens, "more tokens than"),
}


@pytest.fixture(params=transports())
def predictor(request: pytest.FixtureRequest, volume: Path, tmp_path: Path) -> Iterator[Service]:
    with running_service("predictor", volume, tmp_path, transport=request.param) as service:
        yield service


def most_memory(service: Service) -> int:
    """Return the service's peak memory since its start, in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def processor_seconds(service: Service) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_costly_file_is_refused_cheaply_while_other_tenants_are_answered(
    bomb: str, predictor: Service, volume: Path, figure: Callable[[str], None]
) -> None:
    change, message = BOMBS[bomb]
    for number in range(TENANTS):
        shutil.copytree(SAMPLE, volume / f"tenant-{number}")
    first = Path(shutil.copytree(SAMPLE, volume / "evil-0"))
    change(first)
    reseal(first)
    for number in range(1, 3):
        shutil.copytree(first, volume / f"evil-{number}")

    with grpc.insecure_channel(predictor.address) as channel, ThreadPoolExecutor(2 * TENANTS) as pool:
        stub = pb_grpc.PredictorStub(channel)

        def ask(model_id: str) -> tuple[grpc.StatusCode, str]:
            try:
                answer = stub.PredictorPredict(
                    pb.PredictorPredictRequest(runId=model_id, document=DOCUMENT), timeout=60
                )
            except grpc.RpcError as error:
                return error.code(), error.details() or ""
            return grpc.StatusCode.OK, answer.label

        assert ask("tenant-0") == (grpc.StatusCode.OK, "balance")
        memory, seconds = most_memory(predictor), processor_seconds(predictor)
        evil = [pool.submit(ask, f"evil-{number}") for number in range(3)]
        others = [pool.submit(ask, f"tenant-{number}") for number in range(TENANTS)]
        assert [each.result() for each in others] == [(grpc.StatusCode.OK, "balance")] * TENANTS
        for each in evil:
            code, details = each.result()
            assert code is grpc.StatusCode.FAILED_PRECONDITION, details
            assert message in details
        assert most_memory(predictor) - memory < MOST_BYTES
        assert processor_seconds(predictor) - seconds < MOST_PROCESSOR_SECONDS
        figure(f"{bomb}: {(most_memory(predictor) - memory) >> 20} MiB, {processor_seconds(predictor) - seconds:.2f} s")
    models = {model.id for model in ask_residency(predictor.address).models}
    assert models == {f"tenant-{number}" for number in range(TENANTS)}
