"""Callers of every kind, allowed or not: their identities in the access file, and the metadata they send."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.access import AUDIENCE, ISSUER, Issuer, a_key, identity_of, in_the_past, write_access

MINE: Final = "mine"
"""Model that belongs to most of the callers."""
THEIRS: Final = "theirs"
"""Existing model that belongs to none of the callers."""
MINE_TO_BE: Final = "mine-to-be"
"""Missing model that belongs to the callers: no call can change it."""

ISSUER_OF_TESTS: Final = Issuer()

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Caller:
    """Metadata that a caller sends, and the caller's rights in the access file."""

    metadata: Metadata
    rights: frozenset[str] | None = None
    """Rights of the caller; ``None`` if the caller is unknown."""
    has_models: bool = True
    """Whether the models that are requested belong to the caller."""


def known(name: str, *rights: str, has_models: bool = True) -> Caller:
    return Caller((("authorization", f"Bearer {a_key(name)}"),), frozenset(rights), has_models)


def bearer(token: str) -> Caller:
    return Caller((("authorization", f"Bearer {token}"),))


def unsigned() -> str:
    parts = ({"alg": "none", "kid": "key-1"}, {"iss": ISSUER, "aud": AUDIENCE, "sub": "all", "exp": time.time() + 600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


ALL_RIGHTS: Final = ("predict", "explain", "manage", "delegate")
_SIGNED: Final = ISSUER_OF_TESTS.token("predict", seconds=86_400)

CALLERS: Final[Mapping[str, Caller]] = {
    "no credential": Caller(()),
    "unknown key": bearer("no-such-key"),
    "expired key": bearer("former-key"),
    "malformed": Caller((("authorization", a_key("all")),)),
    "basic": Caller((("authorization", f"Basic {a_key('all')}"),)),
    "no rights": known("none"),
    "predict": known("predict", "predict"),
    "predict, as x-api-key": Caller((("x-api-key", a_key("predict")),), frozenset({"predict"})),
    "predict, for another model": known("stranger", "predict", has_models=False),
    "explain": known("explain", "explain"),
    "manage": known("manage", "manage"),
    "manage, for another model": known("manager", "manage", has_models=False),
    "delegate": known("delegate", "delegate"),
    "all rights": known("all", *ALL_RIGHTS),
    "token": Caller((("authorization", f"Bearer {_SIGNED}"),), frozenset({"predict"})),
    "expired token": bearer(ISSUER_OF_TESTS.token("all", seconds=-3600)),
    "token of another issuer": bearer(ISSUER_OF_TESTS.token("all", iss="https://other.example")),
    "token for others": bearer(ISSUER_OF_TESTS.token("all", aud="others")),
    "unsigned token": bearer(unsigned()),
    "token signed by somebody else": bearer(Issuer().token("all")),
    "token with an unknown key id": bearer(ISSUER_OF_TESTS.token("all", key_id="key-2")),
    "token of a stranger": bearer(ISSUER_OF_TESTS.token("nobody-of-ours")),
}


def identities() -> dict[str, Any]:
    """Return the identities of the callers for the access file."""
    mine = {"models": ["mine*"]}
    former = identity_of("predict", keys=["former-key"])["keys"][0] | {"expires": in_the_past()}
    return {
        "none": identity_of("none", **mine),
        "predict": identity_of("predict", "predict", **mine)
        | {
            "keys": [*identity_of("predict")["keys"], former],
        },
        "explain": identity_of("explain", "explain", **mine),
        "manage": identity_of("manage", "manage", **mine),
        "delegate": identity_of("delegate", "delegate", **mine),
        "all": identity_of("all", *ALL_RIGHTS, **mine),
        "stranger": identity_of("stranger", "predict", models=["others*"]),
        "manager": identity_of("manager", "manage", models=["others*"]),
    }


def access_file(folder: Path) -> Path:
    """Write the access file; return its path."""
    return write_access(folder, identities(), issuer=ISSUER_OF_TESTS)
