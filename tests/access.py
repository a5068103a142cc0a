"""Builders for tests of access: an access file with all identities, keys, tokens, and the issuers that sign them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serving.access.keys import hash_of
from tests.fakes.presented import FakePresented

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "intent-serving"
LEEWAY_SECONDS: Final = 5.0


def a_key(owner: str) -> str:
    """Return the key of ``owner``; any text may be a key."""
    return f"the-key-of-{owner}"


def identity_of(
    name: str, *rights: str, models: Sequence[str] = ("*",), keys: Sequence[str] | None = None, **entry: Any
) -> dict[str, Any]:
    """Return an identity as the file holds it, with its own key unless ``keys`` are given."""
    known = [a_key(name)] if keys is None else keys
    return {"keys": [{"sha256": hash_of(key)} for key in known], "models": models, "rights": rights, **entry}


@dataclass
class Issuer:
    """A signer of tokens."""

    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    key_id: str = "key-1"

    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def private_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def token(
        self,
        subject: str | None,
        *,
        seconds: float = 600.0,
        key_id: str | None = None,
        leave_out: str = "",
        **claims: Any,
    ) -> str:
        """Return a token that is valid for ``seconds``; the other arguments override its parts."""
        content = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": time.time() + seconds} | claims
        content.pop(leave_out, None)
        headers = {"kid": self.key_id if key_id is None else key_id}
        return jwt.encode(content, self.private_pem(), algorithm="ES256", headers=headers)


def jwt_section(**keys: Any) -> dict[str, Any]:
    """Return the section of the file that accepts tokens of an issuer whose public key is in ``issuer.pem``."""
    return {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ["ES256"],
        "keys": {"key-1": "issuer.pem"},
        "leeway_seconds": LEEWAY_SECONDS,
    } | keys


def write_access(folder: Path, identities: Mapping[str, Any], *, issuer: Issuer | None = None, **keys: Any) -> Path:
    """Write an access file atomically, and the public key of an issuer beside it; return the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"identities": identities}
    if issuer is not None:
        (folder / "issuer.pem").write_bytes(issuer.public_pem())
        content["jwt"] = jwt_section(**keys)
    return replace_file(folder / "access.json", json.dumps(content))


def replace_file(path: Path, content: str) -> Path:
    """Replace a file atomically."""
    staged = path.with_name(f".{path.name}")
    staged.write_text(content)
    return staged.replace(path)


def in_the_past() -> str:
    """Return a moment in the past, in the format of the file."""
    return (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


def in_the_future() -> str:
    """Return a moment that no test reaches."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


def bearing(credential: str) -> FakePresented:
    """Return a call that carries a key or a token."""
    return FakePresented(("authorization", f"Bearer {credential}"))
