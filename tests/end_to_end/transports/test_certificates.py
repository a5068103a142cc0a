"""Certificates that are replaced while a service serves, on every transport."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from tests.builders import PATIENCE, free_port
from tests.end_to_end.processes import Service, start, transports
from tests.end_to_end.transports.callers import SyncCaller, Tls, guarded
from tests.end_to_end.transports.certificates import Authority, der_of, shown_certificate
from tests.end_to_end.transports.orders import Echo, Order
from tests.end_to_end.transports.running import PROGRAM, running

CALLERS = 8
REPLACED = "certificate replaced"
REFUSED = "certificate not replaced; the former one stays in use"

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> tuple[Pair, Pair]:
    """Two certificates of the service, each with its key."""
    return authority.signed("first"), authority.signed("second")


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class CertificatePaths:
    """Paths at which a service finds its certificate."""

    folder: Path
    certificate: Path
    key: Path


class Renamed:
    """Replacement that renames each file over the former one."""

    def __init__(self, folder: Path) -> None:
        self.paths = CertificatePaths(folder, folder / "tls.crt", folder / "tls.key")

    def put(self, pair: Pair) -> None:
        for file, target in zip(pair, (self.paths.certificate, self.paths.key), strict=True):
            staged = target.with_suffix(".new")
            shutil.copy(file, staged)
            staged.replace(target)


class Overwritten(Renamed):
    """Replacement that writes each file in place."""

    def put(self, pair: Pair) -> None:
        self.paths.certificate.write_bytes(pair[0].read_bytes())
        self.paths.key.write_bytes(pair[1].read_bytes())


class Swapped(Renamed):
    """Replacement of both files behind one link, which is swapped: as Kubernetes mounts a Secret."""

    def put(self, pair: Pair) -> None:
        version = self.paths.folder / f"..{time.time_ns()}"
        version.mkdir()
        shutil.copy(pair[0], version / "tls.crt")
        shutil.copy(pair[1], version / "tls.key")
        staged, data = self.paths.folder / "..data_tmp", self.paths.folder / "..data"
        staged.symlink_to(version.name)
        staged.replace(data)
        for path in (self.paths.certificate, self.paths.key):
            if not path.is_symlink():
                path.symlink_to(Path("..data") / path.name)


@contextmanager
def encrypted(transport: str, paths: CertificatePaths, folder: Path, *flags: str) -> Iterator[Service]:
    with running(folder, transport, *flags_of(paths), *flags) as service:
        yield service


def flags_of(paths: CertificatePaths) -> tuple[str, ...]:
    return ("--tls-certificate", str(paths.certificate), "--tls-key", str(paths.key))


async def come_true(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``, which is called in a thread, returns true."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process has to be polled
            await asyncio.sleep(0.05)


async def shows(service: Service, authority: Authority, certificate: Path) -> None:
    """Wait until a new connection is presented with this certificate."""
    wanted = der_of(certificate)
    await come_true(lambda: shown_certificate(service.address, authority.certificate) == wanted)


@dataclass
class Load:
    """Callers that call repeatedly, each on a persistent connection or on a new one for each call."""

    address: str
    credentials: grpc.ChannelCredentials
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    async def more(self, calls: int) -> None:
        """Wait until ``calls`` more calls have been answered."""
        wanted = self.answered + calls
        await come_true(lambda: self.answered >= wanted)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self._call(stays=number % 2 == 0)) for number in range(CALLERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self.address, self.credentials, options=(("grpc.use_local_subchannel_pool", 1),))

    async def _call(self, *, stays: bool) -> None:
        channel = self.channel()
        try:
            while True:
                if not stays:
                    await channel.close()
                    channel = self.channel()
                await self._one(channel)
        finally:
            await channel.close()

    async def _one(self, channel: grpc.aio.Channel) -> None:
        method = channel.unary_unary(guarded("Unary"), Order.to_wire, Echo.from_wire)
        try:
            await method(Order(text="a"), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"{error.code().name}: {error.details()}")
        else:
            self.answered += 1


@pytest.mark.parametrize("way", [Renamed, Overwritten, Swapped])
async def test_a_new_certificate_is_taken_and_no_call_fails(  # noqa: PLR0917 - fixtures
    transport: str,
    way: Callable[[Path], Renamed],
    authority: Authority,
    pairs: tuple[Pair, Pair],
    tmp_path: Path,
    figure: Callable[[str], None],
) -> None:
    folder = tmp_path / "certificate"
    folder.mkdir()
    files = way(folder)
    files.put(pairs[0])
    with encrypted(transport, files.paths, tmp_path / "service") as service:
        load = Load(service.address, grpc.ssl_channel_credentials(authority.certificate.read_bytes()))
        await shows(service, authority, pairs[0][0])
        async with load.running(), load.channel() as channel:
            stream: Any = channel.stream_stream("/transports.Echo/Both", Order.to_wire, Echo.from_wire)(
                timeout=PATIENCE
            )
            await stream.write(Order(text="before"))
            assert (await stream.read()).text == "before"
            await load.more(50)
            for pair in (pairs[1], pairs[0]):
                files.put(pair)
                await shows(service, authority, pair[0])
                await load.more(50)
            await stream.write(Order(text="after"))
            assert (await stream.read()).text == "after"
            await stream.done_writing()

        assert load.failed == []
        assert len([line for line in service.events() if line["event"] == REPLACED]) == 2
        figure(f"certificate {way.__name__.lower()} twice, {transport}: {load.answered} calls answered, 0 failed")


def metrics_of(service: Service) -> dict[str, float]:
    address = service.wait_until_logged("metrics")["address"]
    with urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


FAILURES = 'intent_configuration_reload_failures_total{file="certificate"}'


@pytest.mark.parametrize("fault", ["the key of another", "no key", "half a certificate", "expired"])
async def test_a_broken_pair_leaves_the_former_one_in_use(
    transport: str, fault: str, authority: Authority, pairs: tuple[Pair, Pair], tmp_path: Path
) -> None:
    folder = tmp_path / "certificate"
    folder.mkdir()
    files = Overwritten(folder)
    files.put(pairs[0])
    with encrypted(transport, files.paths, tmp_path / "service", "--metrics-port", str(free_port())) as service:
        before = metrics_of(service)
        break_with(fault, files, authority, pairs)
        told = await asyncio.to_thread(service.wait_until_logged, REFUSED)
        assert told["level"] == "error"
        assert "; " in told["reason"], "it says what to do"
        assert "PRIVATE" not in service.log.read_text()

        await shows(service, authority, pairs[0][0])
        assert before[FAILURES] == 0
        after = metrics_of(service)
        assert after[FAILURES] == 1
        assert after["intent_certificate_expiry_seconds"] == before["intent_certificate_expiry_seconds"] > time.time()

        files.put(pairs[1])
        await shows(service, authority, pairs[1][0])
        assert metrics_of(service)[FAILURES] == 1


def break_with(fault: str, files: Renamed, authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    if fault == "the key of another":
        files.put((pairs[1][0], pairs[0][1]))
    elif fault == "no key":
        files.paths.key.unlink()
    elif fault == "half a certificate":
        whole = pairs[1][0].read_bytes()
        files.paths.certificate.write_bytes(whole[: len(whole) // 2])
    else:
        files.put(authority.expired("late"))


async def test_a_new_authority_of_callers_is_taken(transport: str, authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "certificate"
    folder.mkdir()
    files = Renamed(folder)
    files.put(authority.signed("server"))
    known = folder / "callers.pem"
    shutil.copy(authority.certificate, known)
    other = Authority(tmp_path, "other")
    with encrypted(transport, files.paths, tmp_path / "service", "--tls-client-authority", str(known)) as service:
        assert code_for(service, authority, authority.signed("caller")) == "OK"
        assert code_for(service, authority, other.signed("caller")) == "UNAVAILABLE"

        known.write_bytes(other.certificate.read_bytes())
        await asyncio.to_thread(service.wait_until_logged, REPLACED)

        taken = other.signed("caller")
        await come_true(lambda: code_for(service, authority, taken) == "OK")
        assert code_for(service, authority, authority.signed("caller")) == "UNAVAILABLE"


def code_for(service: Service, authority: Authority, pair: Pair) -> str:
    """Call with this certificate; return the status."""
    tls = Tls(authority.certificate.read_bytes(), *(path.read_bytes() for path in pair))
    return SyncCaller().call(service.address, "Unary", Order(), tls=tls, seconds=5.0).code


@pytest.mark.parametrize("fault", ["the key of another", "half a certificate"])
def test_nothing_is_served_without_a_usable_pair(
    transport: str, fault: str, authority: Authority, pairs: tuple[Pair, Pair], tmp_path: Path
) -> None:
    files = Overwritten(tmp_path)
    files.put(pairs[0])
    break_with(fault, files, authority, pairs)
    service = start(PROGRAM, tmp_path, tmp_path, *flags_of(files.paths), transport=transport)

    assert service.process.wait(PATIENCE) == 1
    last = service.log.read_text().splitlines()[-1]
    assert last.startswith("transports: the ")
    assert str(files.paths.certificate) in last
