"""Callers identified by their credentials, the rights that methods require, and an access file that changes."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from grpc import StatusCode

from serving.access import failure_log
from serving.access.audit import audited
from serving.access.configured import ConfiguredAccess
from serving.access.metrics import AccessCollector
from serving.access.own_credential import OwnCredential
from serving.call.call import Call, enter_call
from serving.call.counters import AccessCounters
from serving.call.deadline import NEVER
from serving.call.identity import OPEN, Identity, Right
from serving.domain.errors import ModelNotFound, PermissionDenied, Unauthenticated
from serving.files.reloads import RELOAD_FAILURES, ReloadFailureCollector
from tests.access import (
    Issuer,
    a_key,
    bearing,
    identity_of,
    in_the_future,
    in_the_past,
    replace_file,
    write_access,
)
from tests.builders import PATIENCE
from tests.fakes.clock import FakeClock
from tests.fakes.presented import FakePresented
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@asynccontextmanager
async def configured(path: Path, **options: Any) -> AsyncIterator[ConfiguredAccess]:
    access = ConfiguredAccess(path, look_seconds=0.01, **options)
    try:
        yield access
    finally:
        await access.close()


async def becomes(true: Callable[[], object]) -> None:
    """Wait until ``true`` returns a true value."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - a file is checked in a thread
            await asyncio.sleep(0.005)


def refusal_of(access: ConfiguredAccess, presented: FakePresented) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        access.identify(presented)
    assert_fit_for_callers(caught.value)
    return caught.value


def is_known(access: ConfiguredAccess, presented: FakePresented) -> bool:
    try:
        access.identify(presented)
    except Unauthenticated:
        return False
    return True


def names(access: ConfiguredAccess, presented: FakePresented) -> str:
    return access.identify(presented).name


# Credentials


@pytest.mark.parametrize(
    "pair",
    [
        ("authorization", f"Bearer {a_key('acme')}"),
        ("authorization", f"bearer   {a_key('acme')} "),
        ("authorization", f"BEARER {a_key('acme')}"),
        ("x-api-key", a_key("acme")),
        ("x-api-key", f" {a_key('acme')} "),
    ],
)
async def test_a_key_is_known_however_it_is_sent(pair: tuple[str, str], tmp_path: Path) -> None:
    async with configured(write_access(tmp_path, {"acme": identity_of("acme")})) as access:
        # The key is remembered the second time.
        for _ in range(2):
            assert names(access, FakePresented(("user-agent", "x"), pair)) == "acme"


async def test_a_key_takes_no_more_memory_however_it_is_written(tmp_path: Path) -> None:
    async with configured(write_access(tmp_path, {"acme": identity_of("acme")})) as access:
        tracemalloc.start()
        for spaces in range(10_000, 10_200):
            written = FakePresented(("authorization", f"Bearer {' ' * spaces}{a_key('acme')}"))
            assert names(access, written) == "acme"
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert taken < 500_000


BAD = {
    "nothing": ((), "missing"),
    "another header": ((("api-key", a_key("acme")),), "missing"),
    "an unknown key": ((("x-api-key", "other"),), "unknown"),
    "a key that has a beginning in common": ((("x-api-key", a_key("acme")[:-1]),), "unknown"),
    "an empty key": ((("x-api-key", ""),), "invalid"),
    "no scheme": ((("authorization", a_key("acme")),), "invalid"),
    "another scheme": ((("authorization", f"Basic {a_key('acme')}"),), "invalid"),
    "a scheme alone": ((("authorization", "Bearer"),), "invalid"),
    "no text": ((("authorization", "Bearer \ud800"),), "unknown"),
    "an expired key": ((("x-api-key", "former"),), "expired"),
    "a token where none are taken": ((("authorization", "Bearer a.b.c"),), "unknown"),
    "a good key behind a bad one": ((("authorization", "Bearer x"), ("x-api-key", a_key("acme"))), "unknown"),
}


@pytest.mark.parametrize("name", BAD)
async def test_anything_else_is_refused_and_counted(name: str, tmp_path: Path, events: list[Any]) -> None:
    metadata, reason = BAD[name]
    acme = identity_of("acme")
    acme["keys"].append(identity_of("acme", keys=["former"])["keys"][0] | {"expires": in_the_past()})
    async with configured(write_access(tmp_path, {"acme": acme})) as access:
        error = refusal_of(access, FakePresented(*metadata))
        assert access.counters.failures == dict.fromkeys(access.counters.failures, 0) | {reason: 1}
    assert error.was_logged
    (line,) = [event for event in events if event["event"] == "authentication failed"]
    assert (line["reason"], line["identity"]) == (reason, "acme" if reason == "expired" else "")
    for _, value in metadata:
        assert not value or value not in f"{error} {events}"


async def test_a_key_is_good_until_it_expires_and_another_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = identity_of("acme", keys=["new", "old"])
    entry["keys"][1]["expires"] = in_the_future()
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    async with configured(write_access(tmp_path, {"acme": entry})) as access:
        assert [names(access, bearing(key)) for key in ("new", "old")] == ["acme", "acme"]
        now[0] += timedelta(days=40_000).total_seconds()
        assert names(access, bearing("new")) == "acme"
        refusal_of(access, bearing("old"))
        assert access.counters.failures["expired"] == 1


async def test_tokens_and_keys_are_taken_side_by_side(tmp_path: Path) -> None:
    issuer = Issuer()
    path = write_access(tmp_path, {"acme": identity_of("acme"), "other": {}}, issuer=issuer)
    async with configured(path) as access:
        assert names(access, bearing(a_key("acme"))) == "acme"
        token = issuer.token("other")
        assert [names(access, bearing(token)) for _ in range(3)] == ["other"] * 3
        refusal_of(access, bearing(issuer.token("stranger")))
        assert access.counters.failures["unknown"] == 1
        # The header x-api-key takes keys only, and never a token.
        refusal_of(access, FakePresented(("x-api-key", token)))


async def test_a_remembered_token_is_not_checked_again_and_no_longer_remembered_than_the_file_stays(
    tmp_path: Path,
) -> None:
    issuer = Issuer()
    path = write_access(tmp_path, {"acme": identity_of("acme")}, issuer=issuer)
    async with configured(path) as access:
        token = issuer.token("acme")
        first = access.identify(bearing(token))
        assert access.identify(bearing(token)) is first
        replace_file(path, json.dumps(json.loads(path.read_text()) | {"identities": {"other": {}}}))
        await becomes(lambda: is_known(access, bearing(issuer.token("other"))))
        refusal_of(access, bearing(token))


async def test_a_certificate_tells_who_calls_where_nothing_else_does(tmp_path: Path) -> None:
    identities = {"acme": {"certificates": ["client.acme.example"]}, "other": identity_of("other")}
    async with configured(
        write_access(tmp_path, identities), certificate_names=lambda presented: presented.names
    ) as access:
        names_of_acme = ("unknown", "client.acme.example")
        assert names(access, FakePresented(names=names_of_acme)) == "acme"
        refusal_of(access, FakePresented(names=("acme",)))
        # A credential that is sent beside a certificate counts, right or wrong.
        assert names(access, FakePresented(("x-api-key", a_key("other")), names=names_of_acme)) == "other"
        refusal_of(access, FakePresented(("x-api-key", "wrong"), names=names_of_acme))


async def test_a_surge_of_bad_credentials_writes_a_few_lines_and_counts_all(tmp_path: Path, events: list[Any]) -> None:
    clock = FakeClock(100.0)
    async with configured(write_access(tmp_path, {}), clock=clock) as access:
        for number in range(10_000):
            refusal_of(access, bearing(f"guess-{number}"))
        lines = [event for event in events if event["event"] == "authentication failed"]
        assert len(lines) == failure_log.MOST_LINES
        clock.now += failure_log.PERIOD_SECONDS
        refusal_of(access, bearing("guess"))
        assert events[-1]["suppressed"] == 10_000 - failure_log.MOST_LINES
        assert access.counters.failures["unknown"] == 10_001
    assert "guess" not in str(events)


# Rights


@pytest.mark.parametrize("asked", [*Right, (Right.PREDICT, Right.DELEGATE)], ids=str)
@pytest.mark.parametrize("right", [*Right, None], ids=str)
async def test_a_method_is_for_those_with_its_right(right: Right | None, asked: Any, tmp_path: Path) -> None:
    path = write_access(tmp_path, {"acme": identity_of("acme", *([] if right is None else [right.value]))})
    async with configured(path) as access:
        identity = access.identify(bearing(a_key("acme")))
        if right in (asked if isinstance(asked, tuple) else (asked,)):
            access.check_method(identity, asked)
            return
        with pytest.raises(PermissionDenied) as caught:
            access.check_method(identity, asked)
        assert_fit_for_callers(caught.value)
        assert access.counters.denied == 1


async def test_a_method_that_says_nothing_of_rights_is_for_nobody(tmp_path: Path) -> None:
    async with configured(write_access(tmp_path, {"root": identity_of("root", *(r.value for r in Right))})) as access:
        with pytest.raises(PermissionDenied):
            access.check_method(access.identify(bearing(a_key("root"))), None)
        access.check_method(access.identify(bearing(a_key("root"))), OPEN)


async def test_whose_name_is_not_known_is_denied(tmp_path: Path) -> None:
    async with configured(write_access(tmp_path, {"acme": identity_of("acme")})) as access:
        assert access.named("acme").name == "acme"
        with pytest.raises(PermissionDenied):
            access.named("other")


def test_a_model_is_denied_in_the_same_words_whatever_it_is_called() -> None:
    identity = Identity("acme", frozenset({Right.PREDICT}), ("acme-*",))
    messages = set()
    for model in ("other", "acme", "no-such-model", "x@1", ""):
        with pytest.raises(PermissionDenied) as caught:
            identity.check(Right.PREDICT, model)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert identity.counters.denied == 5


# The file changes


async def test_a_new_file_is_in_force_soon(tmp_path: Path, events: list[Any]) -> None:
    path = write_access(tmp_path, {"acme": identity_of("acme")})
    async with configured(path) as access:
        assert names(access, bearing(a_key("acme"))) == "acme"
        write_access(tmp_path, {"other": identity_of("other")})
        await becomes(lambda: any(event["event"] == "configuration reloaded" for event in events))
        refusal_of(access, bearing(a_key("acme")))
        assert names(access, bearing(a_key("other"))) == "other"


@pytest.mark.parametrize("how", ["damaged", "gone", "without its key"])
async def test_a_file_that_cannot_be_used_leaves_the_former_in_force_until_it_can(
    how: str, tmp_path: Path, events: list[Any]
) -> None:
    path = write_access(tmp_path, {"acme": identity_of("acme")})
    before = RELOAD_FAILURES.counts["access"]

    def failures() -> int:
        return RELOAD_FAILURES.counts["access"] - before

    async with configured(path) as access:
        if how == "damaged":
            replace_file(path, '{"identities": ')
        elif how == "gone":
            path.unlink()
        else:
            write_access(tmp_path / "beside", {}, issuer=Issuer())
            replace_file(path, (tmp_path / "beside" / "access.json").read_text())
        await becomes(failures)
        assert names(access, bearing(a_key("acme"))) == "acme"
        # The file is checked all the time, and its failure is logged once.
        await asyncio.sleep(0.1)
        assert failures() == 1
        (line,) = [event for event in events if event["log_level"] == "error"]
        assert line["file"] == "access.json"
        assert str(tmp_path) not in str(line)
        if how == "without its key":
            (tmp_path / "issuer.pem").write_bytes(Issuer().public_pem())
            await becomes(lambda: not is_known(access, bearing(a_key("acme"))))
        else:
            write_access(tmp_path, {"other": identity_of("other")})
            await becomes(lambda: is_known(access, bearing(a_key("other"))))
    (metric,) = ReloadFailureCollector().collect()
    assert {sample.labels["file"] for sample in metric.samples} == {"access", "certificate"}


async def test_a_new_key_of_the_issuer_is_in_force_soon(tmp_path: Path) -> None:
    path = write_access(tmp_path, {"acme": identity_of("acme")}, issuer=Issuer())
    new = Issuer()
    async with configured(path) as access:
        refusal_of(access, bearing(new.token("acme")))
        (tmp_path / "issuer.pem").write_bytes(new.public_pem())

        def is_known() -> bool:
            try:
                return names(access, bearing(new.token("acme"))) == "acme"
            except Unauthenticated:
                return False

        await becomes(is_known)


async def test_a_service_sends_its_new_credential_soon(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old\n")
    credential = OwnCredential(path)
    try:
        assert credential.metadata() == (("authorization", "Bearer old"),)
        replace_file(path, "two words")
        await asyncio.sleep(0.05)
        assert credential.metadata() == (("authorization", "Bearer old"),)
        replace_file(path, "new")
        await becomes(lambda: credential.metadata() == (("authorization", "Bearer new"),))
    finally:
        await credential.close()


# Metrics and log lines


def test_metrics_tell_of_every_reason() -> None:
    counters = AccessCounters()
    counters.failures["expired"] += 3
    counters.denied += 2
    failures, denied = AccessCollector(counters).collect()
    assert {sample.labels["reason"]: sample.value for sample in failures.samples} == {
        "missing": 0, "unknown": 0, "expired": 3, "invalid": 0,
    }  # fmt: skip
    assert [(sample.name, sample.value) for sample in denied.samples] == [("intent_permission_denied_total", 2)]


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, StatusCode.OK), (ModelNotFound("none"), StatusCode.NOT_FOUND), (ValueError("x"), StatusCode.INTERNAL),
     (asyncio.CancelledError(), StatusCode.CANCELLED)],
    ids=repr,
)  # fmt: skip
async def test_what_is_managed_is_told_with_what_came_of_it(
    error: BaseException | None, code: StatusCode, events: list[Any]
) -> None:
    enter_call(Call("request-1", NEVER))
    try:
        with audited("unload", "model\n\x1b[31m"):
            if error is not None:
                raise error  # noqa: TRY301
    except BaseException as raised:  # noqa: BLE001 - whatever was raised
        assert raised is error  # noqa: PT017
    (line,) = events
    assert line | {"model": ""} == {
        "event": "audit", "log_level": "info", "action": "unload", "model": "", "identity": "", "caller": "",
        "request_id": "request-1", "code": code.name,
    }  # fmt: skip
    assert line["model"] == "'model\\n\\x1b[31m'"
