"""Verification of JSON Web Tokens.

Follows RFC 7519, and what RFC 8725 requires of services that verify tokens: the algorithm is determined by the
configuration and the kind of the key, never by the token; issuer, audience and expiry are mandatory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from serving.access.access_file import InvalidAccessFile, JwtSection, read_part
from serving.call.counters import FailureReason
from serving.domain.strict_json import NotStrictJson, parse_json

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | bytes

_MAX_TOKEN_CHARACTERS: Final = 8192
_SHORTEST_SECRET: Final = 32
"""Minimum length of a secret, in bytes; RFC 7518, section 3.2, requires at least the length of the hash."""
_SHORTEST_RSA_BITS: Final = 2048
_NO_ID: Final = ""
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class BadToken(Exception):
    """The token does not identify its caller.

    Args:
        reason: the reason under which the failure is counted.
    """

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason)
        self.reason: FailureReason = reason


class VerifiedToken(NamedTuple):
    """Claims of a valid token."""

    subject: str
    expires_at: float
    """Expiry in seconds since 1970, including the leeway."""


class _Key(NamedTuple):
    key: PublicKey
    algorithms: tuple[str, ...]
    """The configured algorithms that suit keys of this kind."""


class TokenVerifier:
    """Verifies tokens.

    Args:
        section: requirements for tokens.
        keys: keys by key id. A key without an id is the only one, and has the id ``""``.
    """

    def __init__(self, section: JwtSection, keys: Mapping[str, _Key]) -> None:
        self._section = section
        self._keys = keys
        self._only_key = next(iter(keys.values())) if len(keys) == 1 else None
        self._options: Any = {
            "require": ["exp", "iss", "aud", section.claim],
            "verify_sub": section.claim == "sub",
            "strict_aud": False,
            "enforce_minimum_key_length": True,
        }

    @classmethod
    def read(cls, section: JwtSection, folder: Path) -> TokenVerifier:
        """Return the verifier that ``section`` describes, with keys from files below ``folder``. Blocks.

        Raises:
            InvalidAccessFile: a file cannot be read, or contains no key that fits the algorithms.
        """
        keys: dict[str, _Key] = {}
        for key_id, name in section.keys.items():
            what = f"the file of the key {key_id!r}"
            data = read_part(folder / name, what)
            # Editors add a trailing newline.
            key = data.rstrip(b"\r\n") if section.symmetric else _public_key(data, what)
            algorithms = _fitting(key, section, what)
            if not algorithms:
                raise InvalidAccessFile(f"{what} fits none of the configured algorithms")
            keys[key_id] = _Key(key, algorithms)
        if section.jwks_file is not None:
            for key_id, found in _keys_of_set(read_part(folder / section.jwks_file, "the key set"), section):
                if key_id in keys:
                    raise InvalidAccessFile(_same_id(key_id))
                keys[key_id] = found
        if _NO_ID in keys and len(keys) > 1:
            raise InvalidAccessFile(_same_id(_NO_ID))
        if not keys:
            raise InvalidAccessFile("the key set has no key for the configured algorithms")
        return cls(section, keys)

    def verified(self, token: str) -> VerifiedToken:
        """Return the claims of ``token``.

        Raises:
            BadToken: the token is not signed by the issuer, not meant for this service, expired, or damaged.
        """
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise BadToken("invalid")
        section = self._section
        try:
            key = self._key_for(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise BadToken("unknown")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                options=self._options,
                audience=section.audience,
                issuer=section.issuer,
                leeway=section.leeway_seconds,
            )
        except ExpiredSignatureError:
            raise BadToken("expired") from None
        except (PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # The libraries' messages may quote the token.
            raise BadToken("invalid") from None
        subject = claims[section.claim]
        if not isinstance(subject, str):
            raise BadToken("invalid")
        return VerifiedToken(subject, float(claims["exp"]) + section.leeway_seconds)

    def _key_for(self, key_id: str | None) -> _Key | None:
        """Return the key for a token with ``key_id``; without ids (RFC 7515, section 4.1.4), the only key."""
        if key_id is None or _NO_ID in self._keys:
            return self._only_key
        return self._keys.get(key_id)


def _same_id(key_id: str) -> str:
    """Return what is wrong with keys that cannot be distinguished by their ids."""
    if key_id == _NO_ID:
        return "a key of the key set has no key id (kid), which each of several keys needs"
    return f"the key id {key_id!r} appears twice"


def _fitting(key: PublicKey, section: JwtSection, what: str) -> tuple[str, ...]:
    """Return the algorithms of ``section`` that suit keys of this kind."""
    return tuple(sorted(section.algorithms & frozenset(_algorithms_of(key, what))))


def _algorithms_of(key: PublicKey, what: str) -> Iterator[str]:
    if isinstance(key, bytes):
        if len(key) < _SHORTEST_SECRET:
            raise InvalidAccessFile(f"{what} is shorter than {_SHORTEST_SECRET} bytes")
        # The secret must be at least as long as the hash.
        yield from (name for name in ("HS256", "HS384", "HS512") if len(key) * 8 >= int(name[2:]))
    elif isinstance(key, RSAPublicKey):
        if key.key_size < _SHORTEST_RSA_BITS:
            raise InvalidAccessFile(f"{what} has fewer than {_SHORTEST_RSA_BITS} bits")
        yield from ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    elif isinstance(key, Ed25519PublicKey):
        yield "EdDSA"
    elif key.curve.name in _CURVES:
        yield _CURVES[key.curve.name]


def _public_key(data: bytes, what: str) -> PublicKey:
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            key: Any = x509.load_pem_x509_certificate(data).public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError):
        raise InvalidAccessFile(f"{what} is neither a public key nor a certificate in PEM") from None
    if isinstance(key, (RSAPublicKey, EllipticCurvePublicKey, Ed25519PublicKey)):
        return key
    raise InvalidAccessFile(f"{what} is not a public key of a supported kind: RSA, EC or Ed25519")


def _keys_of_set(data: bytes, section: JwtSection) -> Iterator[tuple[str, _Key]]:
    """Yield the keys with which tokens may be signed, by their ids. Issuers also publish other keys, which are skipped.

    Raises:
        InvalidAccessFile: the set cannot be read.
    """
    try:
        found = parse_json(data)
    except NotStrictJson as error:
        raise InvalidAccessFile(f"the key set cannot be read: {error}") from None
    members = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(members, list):
        raise InvalidAccessFile("the key set has no list of keys")
    for member in members:
        if not isinstance(member, dict):
            raise InvalidAccessFile("a key of the key set is no JSON object")
        key_id = member.get("kid", _NO_ID)
        if not isinstance(key_id, str):
            raise InvalidAccessFile("a key id (kid) of the key set is no text")
        if member.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(member).key
        except (PyJWTError, ValueError, TypeError):
            continue
        # Private keys are skipped: this service only verifies.
        if isinstance(key, (RSAPublicKey, EllipticCurvePublicKey, Ed25519PublicKey, bytes)):
            only = {member["alg"]} if "alg" in member else section.algorithms
            fitting = _fitting(key, section, f"the key {key_id!r} of the key set")
            algorithms = tuple(name for name in fitting if name in only)
            if algorithms:
                yield key_id, _Key(key, algorithms)
