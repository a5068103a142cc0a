"""JSON Web Tokens: valid tokens, and the short time for which a service remembers them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from serving.access.access_file import InvalidAccessFile, JwtSection
from serving.access.remembered import REMEMBERED_SECONDS, RememberedCredentials
from serving.access.tokens import BadToken, TokenVerifier
from serving.call.identity import Identity
from tests.access import AUDIENCE, ISSUER, LEEWAY_SECONDS, Issuer, jwt_section

ISSUER_OF_TESTS = Issuer()


def verifier(folder: Path, **keys: Any) -> TokenVerifier:
    (folder / "issuer.pem").write_bytes(ISSUER_OF_TESTS.public_pem())
    return TokenVerifier.read(JwtSection.model_validate(jwt_section(**keys)), folder)


@pytest.fixture
def verify(tmp_path: Path) -> TokenVerifier:
    return verifier(tmp_path)


def reason_of(verify: TokenVerifier, token: str) -> str:
    with pytest.raises(BadToken) as caught:
        verify.verified(token)
    error = caught.value
    assert error.__context__ is None or error.__suppress_context__, "what a library says of a token may quote it"
    return error.reason


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_good_token_tells_its_subject_and_its_end(verify: TokenVerifier) -> None:
    token = verify.verified(ISSUER_OF_TESTS.token("acme", seconds=600))
    assert token.subject == "acme"
    assert 0 < token.expires_at - time.time() <= 600 + LEEWAY_SECONDS


def set_of(issuer: Issuer, *key_ids: str | None) -> str:
    own = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(issuer.key.public_key()))
    return json.dumps({"keys": [own | ({} if each is None else {"kid": each}) for each in key_ids]})


@pytest.mark.parametrize("of_set", [None, "key-1"], ids=["set without kid", "set with kid"])
@pytest.mark.parametrize("of_token", [None, "key-1"], ids=["token without kid", "token with kid"])
def test_the_only_key_needs_no_key_id(of_set: str | None, of_token: str | None, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(set_of(ISSUER_OF_TESTS, of_set))
    verify = TokenVerifier.read(JwtSection.model_validate(jwt_section(keys={}, jwks_file="keys.json")), tmp_path)
    assert verify.verified(without_id(of_token)).subject == "acme"
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    stranger = jwt.encode(content, Issuer().private_pem(), algorithm="ES256", headers={})
    assert reason_of(verify, stranger) == "invalid"


def test_a_token_without_a_key_id_is_of_the_only_key_in_a_file(verify: TokenVerifier) -> None:
    assert verify.verified(without_id(None)).subject == "acme"


def test_where_there_are_several_keys_each_needs_an_id_and_so_does_each_token(tmp_path: Path) -> None:
    section = JwtSection.model_validate(jwt_section(keys={}, jwks_file="keys.json"))
    (tmp_path / "keys.json").write_text(set_of(ISSUER_OF_TESTS, "key-1", None))
    with pytest.raises(InvalidAccessFile, match="no key id"):
        TokenVerifier.read(section, tmp_path)
    (tmp_path / "keys.json").write_text(set_of(ISSUER_OF_TESTS, None, None))
    with pytest.raises(InvalidAccessFile, match="no key id"):
        TokenVerifier.read(section, tmp_path)
    (tmp_path / "keys.json").write_text(set_of(ISSUER_OF_TESTS, "key-1", "key-2"))
    assert reason_of(TokenVerifier.read(section, tmp_path), without_id(None)) == "unknown"


def without_id(key_id: str | None) -> str:
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(content, ISSUER_OF_TESTS.private_pem(), algorithm="ES256", headers=headers)


def test_one_audience_of_several_is_enough(verify: TokenVerifier) -> None:
    assert verify.verified(ISSUER_OF_TESTS.token("acme", aud=["others", AUDIENCE])).subject == "acme"


def test_another_claim_may_name_the_identity(tmp_path: Path) -> None:
    verify = verifier(tmp_path, claim="client_id")
    assert verify.verified(ISSUER_OF_TESTS.token("somebody", client_id="acme")).subject == "acme"
    assert reason_of(verify, ISSUER_OF_TESTS.token("acme")) == "invalid"
    assert reason_of(verify, ISSUER_OF_TESTS.token("acme", client_id=7)) == "invalid"


def test_clocks_may_differ_by_the_leeway(verify: TokenVerifier) -> None:
    assert verify.verified(ISSUER_OF_TESTS.token("acme", seconds=-LEEWAY_SECONDS / 2)).subject == "acme"
    assert reason_of(verify, ISSUER_OF_TESTS.token("acme", seconds=-LEEWAY_SECONDS * 2)) == "expired"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "wrong issuer": ({"iss": "https://other.example"}, "invalid"),
    "wrong audience": ({"aud": "others"}, "invalid"),
    "audience of another kind": ({"aud": 7}, "invalid"),
    "not yet": ({"nbf": time.time() + 3600}, "invalid"),
    "of the future": ({"iat": time.time() + 3600}, "invalid"),
    "no number as its end": ({"exp": "soon"}, "invalid"),
    "no subject": ({"leave_out": "sub"}, "invalid"),
    "no end": ({"leave_out": "exp"}, "invalid"),
    "no issuer": ({"leave_out": "iss"}, "invalid"),
    "no audience": ({"leave_out": "aud"}, "invalid"),
    "unknown key id": ({"key_id": "key-2"}, "unknown"),
    "empty key id": ({"key_id": ""}, "unknown"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_token_that_says_something_else_is_refused(name: str, verify: TokenVerifier) -> None:
    claims, reason = BAD[name]
    assert reason_of(verify, ISSUER_OF_TESTS.token("acme", **claims)) == reason


def test_a_token_that_somebody_else_has_signed_is_refused(verify: TokenVerifier) -> None:
    assert reason_of(verify, Issuer().token("acme")) == "invalid"


def test_a_token_that_was_changed_is_refused(verify: TokenVerifier) -> None:
    header, _, signature = ISSUER_OF_TESTS.token("acme").split(".")
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "operator", "exp": time.time() + 600}
    assert reason_of(verify, f"{header}.{part(content)}.{signature}") == "invalid"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_that_nobody_has_signed_is_refused(algorithm: str, verify: TokenVerifier) -> None:
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    unsigned = f"{part({'alg': algorithm, 'kid': 'key-1', 'typ': 'JWT'})}.{part(content)}."
    assert reason_of(verify, unsigned) == "invalid"


def test_the_public_key_is_no_secret_to_sign_with(verify: TokenVerifier) -> None:
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    signed = f"{part({'alg': 'HS256', 'kid': 'key-1'})}.{part(content)}"
    signature = hmac.new(ISSUER_OF_TESTS.public_pem(), signed.encode(), hashlib.sha256).digest()
    assert reason_of(verify, f"{signed}.{part(signature)}") == "invalid"


def test_critical_extensions_that_nobody_knows_are_refused(verify: TokenVerifier) -> None:
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    headers = {"kid": "key-1", "crit": ["unheard-of"], "unheard-of": True}
    token = jwt.encode(content, ISSUER_OF_TESTS.private_pem(), algorithm="ES256", headers=headers)
    assert reason_of(verify, token) == "invalid"


@pytest.mark.parametrize(
    "token",
    ["..", "a.b.c", f"{part([])}..", f"{part({'kid': ['key-1']})}.{part({})}.", f"{part(b'[' * 5000)}..", "x" * 10_000],
    ids=["dots", "letters", "a list", "an odd key id", "nested deeply", "long"],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str, verify: TokenVerifier) -> None:
    assert reason_of(verify, token) in ("invalid", "unknown")


@given(token=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}"))
def test_whatever_is_sent_is_no_token(token: str) -> None:
    verify = TokenVerifier(JwtSection.model_validate(jwt_section()), {})
    assert reason_of(verify, token) in ("invalid", "unknown")


def test_secrets_sign_too_where_they_are_configured(tmp_path: Path) -> None:
    secret = b"s" * 32
    (tmp_path / "issuer.pem").write_bytes(secret + b"\n")
    verify = TokenVerifier.read(JwtSection.model_validate(jwt_section(algorithms=["HS256", "HS512"])), tmp_path)
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    good = jwt.encode(content, secret, algorithm="HS256", headers={"kid": "key-1"})
    assert verify.verified(good).subject == "acme"
    bad = jwt.encode(content, b"t" * 32, algorithm="HS256", headers={"kid": "key-1"})
    assert reason_of(verify, bad) == "invalid"


def test_a_key_set_gives_the_keys_that_sign_and_fit(tmp_path: Path) -> None:
    own = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ISSUER_OF_TESTS.key.public_key()))
    other = Issuer()
    keys = [
        own | {"kid": "key-1", "use": "sig"},
        json.loads(jwt.algorithms.ECAlgorithm.to_jwk(other.key.public_key())) | {"kid": "encryption", "use": "enc"},
        json.loads(jwt.algorithms.ECAlgorithm.to_jwk(other.key)) | {"kid": "private"},
        {"kty": "unheard-of", "kid": "odd"},
    ]
    (tmp_path / "set.json").write_text(json.dumps({"keys": keys}))
    verify = TokenVerifier.read(JwtSection.model_validate(jwt_section(keys={}, jwks_file="set.json")), tmp_path)
    assert verify.verified(ISSUER_OF_TESTS.token("acme")).subject == "acme"
    for key_id in ("encryption", "private", "odd"):
        assert reason_of(verify, other.token("acme", key_id=key_id)) == "unknown"


def test_a_key_that_is_for_one_algorithm_is_for_no_other(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    of_set = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | {"kid": "key-1", "alg": "RS256"}
    (tmp_path / "set.json").write_text(json.dumps({"keys": [of_set]}))
    section = jwt_section(keys={}, jwks_file="set.json", algorithms=["RS256", "PS256"])
    verify = TokenVerifier.read(JwtSection.model_validate(section), tmp_path)
    content = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 600}
    assert verify.verified(jwt.encode(content, key, algorithm="RS256", headers={"kid": "key-1"})).subject == "acme"
    assert reason_of(verify, jwt.encode(content, key, algorithm="PS256", headers={"kid": "key-1"})) == "invalid"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read"),
        ("[]", "no list of keys"),
        ('{"keys": [{}]}', "no key for the configured algorithms"),
        ('{"keys": [{"kid": 7}]}', "is no text"),
        ('{"keys": [7]}', "no JSON object"),
        ('{"keys": []}', "no key for the configured algorithms"),
    ],
)
def test_a_key_set_without_a_key_is_refused(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(InvalidAccessFile, match=told):
        TokenVerifier.read(JwtSection.model_validate(jwt_section(keys={}, jwks_file="set.json")), tmp_path)


# Remembered tokens


ACME = Identity("acme", frozenset(), ())


def test_a_token_is_remembered_until_it_expires() -> None:
    now = [1000.0]
    remembered = RememberedCredentials(clock=lambda: now[0])
    remembered.keep("token", ACME, 1010.0)
    assert remembered.identity_of("token") is ACME
    now[0] = 1010.0
    assert remembered.identity_of("token") is None
    assert len(remembered) == 0


def test_a_token_is_remembered_for_a_short_time_however_long_it_is_good() -> None:
    now = [1000.0]
    remembered = RememberedCredentials(clock=lambda: now[0])
    remembered.keep("token", ACME, 1e9)
    now[0] += REMEMBERED_SECONDS - 1
    assert remembered.identity_of("token") is ACME
    now[0] += 1
    assert remembered.identity_of("token") is None


def test_so_many_are_remembered_and_the_oldest_go() -> None:
    remembered = RememberedCredentials(most=3, clock=lambda: 1000.0)
    for number in range(10):
        remembered.keep(str(number), ACME, 1e9)
    assert [str(number) for number in range(10) if remembered.identity_of(str(number))] == ["7", "8", "9"]
