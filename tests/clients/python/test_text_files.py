"""Byte order marks at the beginning of everything that is read as text."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from frontend.engines.torchserve.keys import Api, Keys
from frontend.open_inference.rest.json_requests import RestInference, parse_request
from grpc_http2.client.encryption import client_context
from intent_serving_client.channels import ChannelOptions, check_options
from intent_serving_client.material import contents_of
from intent_serving_client.text_files import MARK, without_mark
from intentctl.trial_certificates import trial_certificates
from serving.access.access_map import read_access_map
from serving.access.own_credential import read_credential
from serving.call.counters import AccessCounters
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.manifest import Manifest
from serving.domain.releases.release import Release
from serving.domain.strict_json import parse_json
from serving.files.material import TlsFiles, read_material
from tests.access import Issuer, jwt_section
from tests.builders import PATIENCE
from tests.conftest import ROOT


def marked(path: Path, data: bytes) -> Path:
    path.write_bytes(MARK + data)
    return path


def test_only_one_mark_and_only_the_first_is_left_out() -> None:
    assert without_mark(MARK + b"a" + MARK) == b"a" + MARK
    assert without_mark(b"a") == b"a"


def test_json_may_begin_with_it() -> None:
    assert parse_json(MARK + b'{"a": 1}') == {"a": 1}
    assert parse_request(RestInference, MARK + b'{"inputs": []}').inputs == []


def test_a_manifest_and_a_release_may_begin_with_it() -> None:
    data = (ROOT / "models" / "clinc150" / "manifest.json").read_bytes()
    assert Manifest.parse(MARK + data) == Manifest.parse(data)
    release = b'{"format": 1, "revision": 1, "stable": "1", "history": []}'
    try:
        expected: object = Release.parse(release)
    except Exception as error:  # noqa: BLE001 - whatever it is, the mark must not change it
        with pytest.raises(type(error), match=str(error).split(";")[0][:20]):
            Release.parse(MARK + release)
    else:
        assert Release.parse(MARK + release) == expected


def test_an_access_file_and_each_file_that_it_names_may_begin_with_it(tmp_path: Path) -> None:
    issuer = Issuer()
    marked(tmp_path / "issuer.pem", issuer.public_pem())
    content = {"identities": {"acme": {"models": ["*"], "rights": ["predict"]}}, "jwt": jwt_section()}
    known = read_access_map(marked(tmp_path / "access.json", json.dumps(content).encode()), AccessCounters())
    assert known.tokens is not None
    assert known.tokens.verifier.verified(issuer.token("acme")).subject == "acme"


def test_a_credential_may_begin_with_it(tmp_path: Path) -> None:
    assert read_credential(marked(tmp_path / "key", b"a-key\r\n")) == (("authorization", "Bearer a-key"),)


def test_certificates_and_keys_may_begin_with_it(tmp_path: Path) -> None:
    files = trial_certificates((), 1.0)
    paths = {name: marked(tmp_path / name, data) for name, data in files.items()}
    certificate, key, authority = paths["frontend.crt"], paths["frontend.key"], paths["authority.crt"]
    material = read_material(TlsFiles(certificate, key, authority))
    assert material.certificate == files["frontend.crt"]
    check_options(ChannelOptions(tls_authority=authority, tls_certificate=certificate, tls_key=key))
    context = client_context(contents_of(authority, ""), contents_of(certificate, ""), contents_of(key, ""))
    assert context.verify_mode is ssl.CERT_REQUIRED


async def test_torchserves_keys_may_begin_with_it(tmp_path: Path) -> None:
    document = {name: {"key": name} for name in ("inference", "management")}
    tasks = Tasks()
    keys = Keys(marked(tmp_path / "key_file.json", json.dumps(document).encode()), tasks)
    assert await keys.changed(Api.INFERENCE, (), Deadline.after(PATIENCE))
    assert keys.metadata(Api.INFERENCE) == (("authorization", "Bearer inference"),)
    await tasks.close()
