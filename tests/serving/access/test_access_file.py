"""The access file: accepted contents, and messages that report each fault without quoting the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.access.access_file import AccessFile, InvalidAccessFile, read_access_file
from serving.access.access_map import read_access_map
from serving.access.keys import hash_of, new_key
from serving.call.counters import AccessCounters
from serving.call.identity import Right
from serving.call.limits import Limits
from tests.access import Issuer, identity_of, in_the_future, jwt_section, write_access

PRIVATE = "what-nobody-may-see"
HASH = hash_of("a key")


def test_an_identity_has_what_the_file_says_of_it() -> None:
    entry = {
        "keys": [{"sha256": HASH, "expires": in_the_future(), "comment": "laptop"}],
        "certificates": ["acme.example"],
        "models": ["acme-*", "shared"],
        "rights": ["predict", "explain"],
        "limits": {"requests_per_second": 50, "burst": 100, "in_flight": 8},
        "comment": "a tenant",
    }
    identity = AccessFile.parse(json.dumps({"identities": {"acme": entry}}).encode()).identity_of("acme")
    assert identity.name == "acme"
    assert identity.rights == {Right.PREDICT, Right.EXPLAIN}
    assert [identity.may_use(name) for name in ("acme-1", "acme-1@2", "acme", "shared", "shared-2", "")] == [
        True, True, False, True, False, False,
    ]  # fmt: skip
    assert identity.limits == Limits(50, 100, 8)


def test_who_is_named_and_nothing_else_may_do_nothing() -> None:
    identity = AccessFile.parse(b'{"identities": {"nobody": {}}}').identity_of("nobody")
    assert (identity.rights, identity.may_use("model"), identity.limits) == (frozenset(), False, None)


IDENTITY_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"keys": [{"sha256": PRIVATE}]}, "keys.0.sha256"),
    ({"keys": [{"sha256": HASH.upper()}]}, "keys.0.sha256"),
    ({"keys": [{"sha256": HASH, "expires": "2026-01-01T00:00:00"}]}, "keys.0.expires"),
    ({"keys": [{"sha256": HASH, "expires": PRIVATE}]}, "keys.0.expires"),
    ({"keys": [{"key": PRIVATE}]}, "keys.0"),
    ({"keys": [{"sha256": HASH}, {"sha256": HASH}]}, "a key hash appears twice"),
    ({"key": PRIVATE}, "identities.acme.key"),
    ({"rights": [PRIVATE]}, "rights"),
    ({"rights": ["Predict"]}, "rights"),
    ({"models": ["*-de"]}, "models.0"),
    ({"models": ["a*b"]}, "models.0"),
    ({"models": ["a@1"]}, "models.0"),
    ({"models": [""]}, "models.0"),
    ({"models": ["../a"]}, "models.0"),
    ({"models": ["a\n"]}, "models.0"),
    ({"limits": {"requests_per_second": 0}}, "limits.requests_per_second"),
    ({"limits": {"burst": 0.5}}, "limits.burst"),
    ({"limits": {"in_flight": 0}}, "limits.in_flight"),
    ({"limits": {"requests": 1}}, "limits.requests"),
]


@pytest.mark.parametrize(("entry", "place"), IDENTITY_FAULTS, ids=[place for _, place in IDENTITY_FAULTS])
def test_a_fault_of_an_identity_is_told_by_its_place_and_without_what_stands_there(
    entry: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidAccessFile, match="the access file is not valid") as caught:
        AccessFile.parse(json.dumps({"identities": {"acme": entry}}).encode())
    assert place in str(caught.value)
    assert PRIVATE not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize("name", ["", "two words", "line\n", "ümlaut", "x" * 257, "\u202e"])
def test_a_name_that_cannot_be_told_apart_or_sent_is_refused(name: str) -> None:
    with pytest.raises(InvalidAccessFile):
        AccessFile.parse(json.dumps({"identities": {name: {}}}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"{", b"\xff", b'{"identities": []}', b'{"identities": {}, "open": true}',
        b'{"identities": {"a": {}, "a": {"rights": ["manage"]}}}', b'{"identities": {"a": {"limits": {"burst": NaN}}}}',
        b'{"identities":' + b"[" * 100_000,
    ],
    ids=lambda data: data[:40],
)  # fmt: skip
def test_what_is_no_access_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidAccessFile, match="the access file"):
        AccessFile.parse(data)


def test_one_certificate_is_not_two_callers() -> None:
    entries = {name: {"certificates": ["same.example"]} for name in ("one", "other")}
    with pytest.raises(InvalidAccessFile, match="a certificate name appears twice"):
        AccessFile.parse(json.dumps({"identities": entries}).encode())


JWT_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"algorithms": ["none"]}, "jwt.algorithms"),
    ({"algorithms": []}, "jwt.algorithms"),
    ({"algorithms": ["HS256", "RS256"]}, "keep one kind"),
    ({"keys": {}}, "has no keys"),
    ({"issuer": ""}, "jwt.issuer"),
    ({"audience": None}, "jwt.audience"),
    ({"leeway_seconds": 1e9}, "jwt.leeway_seconds"),
    ({"verify": False}, "jwt.verify"),
]


@pytest.mark.parametrize(("keys", "told"), JWT_FAULTS, ids=[told for _, told in JWT_FAULTS])
def test_a_way_of_checking_tokens_that_is_none_is_refused(keys: dict[str, Any], told: str) -> None:
    content = {"identities": {}, "jwt": jwt_section(**keys)}
    with pytest.raises(InvalidAccessFile, match=told):
        AccessFile.parse(json.dumps(content).encode())


def test_a_file_that_is_not_there_is_told_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidAccessFile, match="No such file") as caught:
        read_access_file(tmp_path / "nowhere.json")
    assert str(tmp_path) not in str(caught.value)


KEY_FILES: list[tuple[bytes, str]] = [
    (b"", "neither a public key nor a certificate"),
    (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "neither a public key nor a certificate"),
    (Issuer().private_pem(), "neither a public key nor a certificate"),
]


@pytest.mark.parametrize(("pem", "told"), KEY_FILES, ids=["empty", "damaged", "private"])
def test_a_file_that_holds_no_public_key_is_refused(pem: bytes, told: str, tmp_path: Path) -> None:
    path = write_access(tmp_path, {}, issuer=Issuer())
    (tmp_path / "issuer.pem").write_bytes(pem)
    with pytest.raises(InvalidAccessFile, match=told):
        read_access_map(path, AccessCounters())


def test_a_key_that_is_for_none_of_the_algorithms_is_refused(tmp_path: Path) -> None:
    path = write_access(tmp_path, {}, issuer=Issuer(), algorithms=["RS256"])
    with pytest.raises(InvalidAccessFile, match="none of the configured algorithms"):
        read_access_map(path, AccessCounters())


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    path = write_access(tmp_path, {}, issuer=Issuer(), algorithms=["HS256"])
    (tmp_path / "issuer.pem").write_bytes(b"x" * 31 + b"\n")
    with pytest.raises(InvalidAccessFile, match="shorter than 32 bytes"):
        read_access_map(path, AccessCounters())


def test_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(len(key) >= 43 and key.isascii() and key.isprintable() and " " not in key for key in keys)


def test_the_file_keeps_no_key(tmp_path: Path) -> None:
    key = new_key()
    path = write_access(tmp_path, {"acme": identity_of("acme", keys=[key])})
    assert key not in path.read_text()
    assert bytes.fromhex(hash_of(key)) in read_access_map(path, AccessCounters()).keys
