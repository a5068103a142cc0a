"""Callers that are known by their certificate alone, with mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.access import a_key, identity_of, write_access
from tests.builders import PATIENCE
from tests.end_to_end.access.callers import MINE, THEIRS, Metadata
from tests.end_to_end.processes import start
from tests.end_to_end.transports.certificates import Authority


def test_a_certificate_is_a_credential(transport: str, models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.signed("server")
    identities = {
        "acme": identity_of("acme", "predict", models=[MINE], keys=[], certificates=["client-of-acme"]),
        "other": identity_of("other", "predict", models=[THEIRS]),
    }
    flags = {
        "--access-file": write_access(tmp_path, identities),
        "--tls-certificate": certificate,
        "--tls-key": key,
        "--tls-client-authority": authority.certificate,
    }
    arguments = [str(part) for pair in flags.items() for part in pair]
    service = start("model_service", models, tmp_path, *arguments, transport=transport)
    try:
        service.wait_until_logged("ready")

        def told(name: str, model: str, metadata: Metadata = ()) -> str:
            own, private = authority.signed(name)
            credentials = grpc.ssl_channel_credentials(
                authority.certificate.read_bytes(), private.read_bytes(), own.read_bytes()
            )
            options = (("grpc.use_local_subchannel_pool", 1),)
            with grpc.secure_channel(service.address, credentials, options) as channel:
                stub = pb_grpc.PredictionServiceStub(channel)
                try:
                    stub.Predict(pb.PredictRequest(runId=model, document="x"), metadata=metadata, timeout=PATIENCE)
                except grpc.RpcError as error:
                    failed: Any = error
                    return str(failed.code().name)
                return "OK"

        assert told("client-of-acme", MINE) == "OK"
        assert told("client-of-acme", THEIRS) == "PERMISSION_DENIED"
        assert told("client-of-nobody", MINE) == "UNAUTHENTICATED"
        # A credential beside a certificate counts, right or wrong. Headers do not count as certificates.
        of_other = (("authorization", f"Bearer {a_key('other')}"),)
        assert [told("client-of-acme", model, of_other) for model in (MINE, THEIRS)] == ["PERMISSION_DENIED", "OK"]
        assert told("client-of-acme", MINE, (("x-api-key", "wrong"),)) == "UNAUTHENTICATED"
        forged = (
            ("x-forwarded-client-cert", 'Subject="CN=client-of-acme"'),
            ("x-client-certificate", "client-of-acme"),
        )
        assert told("client-of-nobody", MINE, forged) == "UNAUTHENTICATED"
    finally:
        service.kill()
