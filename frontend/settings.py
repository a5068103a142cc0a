"""Settings of the frontend."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, FilePath, field_validator, model_validator

from frontend.engines.torchserve.options import TorchServeOptions
from frontend.routing.routes import PREDICTOR, Engine, parse_routes
from grpc_http2.client.servers.addresses import addresses_in
from serving.access.own_credential import read_credential
from serving.call.limits import Limits
from serving.files.material import TlsFiles, UnusableCertificate, read_material
from serving.runtime.settings import Seconds, ServerSettings, service_settings
from serving.workers.cores import usable_cores

_TORCHSERVE: Final = TorchServeOptions()


class EngineSettings(ServerSettings):
    """Settings for calls to engines, and for following releases."""

    workers: int = Field(
        default=1,
        ge=0,
        le=256,
        description="processes that serve on the port, each on a core of its own, under one more that supervises them;"
        " 1: one process without a supervisor; 0: as many workers as there are cores to use",
    )

    release_freshness_seconds: Seconds = Field(
        default=0.25,
        description="a name's release file is looked at for changes at most once in this time; the first one of a name"
        " is found as a model's files are",
    )
    tenant_requests_per_second: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = Field(
        default=0.0,
        description="documents that a tenant may have classified in a second, on average; 0: as many as it likes. A"
        " tenant is an identity of the access file, which may say otherwise, and without one the name of a model",
    )
    tenant_burst: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = Field(
        default=0.0, description="documents that it may send at once after a pause; 0: those of a second"
    )
    tenant_in_flight: int = Field(
        default=0, ge=0, description="calls that it may have in flight; 0: as many as it likes"
    )
    predictor_credential_file: FilePath | None = Field(
        default=None,
        description="file with the API key, or token, that predictors know this frontend by; read again when it"
        " changes",
    )
    predictor_tls_authority: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signed the predictors' certificates; with it they are asked over"
        " TLS only. Files that are replaced are taken by the next connections",
    )
    predictor_tls_certificate: FilePath | None = Field(
        default=None, description="PEM file of this frontend's certificate, where predictors ask for one"
    )
    predictor_tls_key: FilePath | None = Field(default=None, description="PEM file of that certificate's private key")
    predictor_tls_server_name: str = Field(
        default="",
        description="name that the predictors' certificates are for; empty: the host of the route. A route of several"
        " addresses needs it",
    )
    calls_in_flight: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="calls at the same time to an engine and partition, or model; what comes meanwhile goes with the"
        " next one",
    )
    torchserve_models: int = Field(
        default=_TORCHSERVE.most_models,
        ge=1,
        le=4096,
        description="models that this frontend keeps registered at a TorchServe, each with processes of its own; beyond"
        " them the least recently used is unregistered",
    )
    torchserve_workers: int = Field(
        default=_TORCHSERVE.workers, ge=1, le=256, description="processes of a model at a TorchServe"
    )
    torchserve_batch_size: int = Field(
        default=_TORCHSERVE.batch_size, ge=1, le=4096, description="most requests that TorchServe gives a model at once"
    )
    torchserve_batch_delay_milliseconds: int = Field(
        default=_TORCHSERVE.batch_delay_milliseconds,
        ge=1,
        le=60_000,
        description="how long TorchServe waits for a batch to fill",
    )
    torchserve_registration_seconds: Seconds = Field(
        default=_TORCHSERVE.registration_seconds,
        description="how long TorchServe may take to start a model's processes",
    )
    torchserve_response_seconds: int = Field(
        default=_TORCHSERVE.response_seconds,
        ge=1,
        le=86_400,
        description="after how many seconds TorchServe starts a process again that does not answer",
    )
    torchserve_key_file: Path | None = Field(
        default=None,
        description="TorchServe's key_file.json, where it asks for tokens; read again when a key is refused",
    )

    @model_validator(mode="after")
    def _usable_for_predictors(self) -> Self:
        if (self.predictor_tls_certificate is None) != (self.predictor_tls_key is None):
            raise ValueError("predictor-tls-certificate and predictor-tls-key belong together; set both or none")
        files = self.predictor_tls()
        if files is None:
            if self.predictor_tls_certificate is not None or self.predictor_tls_server_name:
                raise ValueError("predictor-tls-certificate and predictor-tls-server-name need predictor-tls-authority")
            return self
        try:
            read_material(files)
        except UnusableCertificate as error:
            raise ValueError(f"TLS to predictors: {error}") from error
        return self

    def predictor_tls(self) -> TlsFiles | None:
        """Return the files for TLS to predictors; ``None`` if predictors are called without TLS."""
        if self.predictor_tls_authority is None:
            return None
        return TlsFiles(self.predictor_tls_certificate, self.predictor_tls_key, self.predictor_tls_authority)

    def check_names(self, engines: Iterable[Engine]) -> None:
        """Check that the name in the certificates of ``engines`` is known. Raises ValueError."""
        if self.predictor_tls_authority is None or self.predictor_tls_server_name:
            return
        if any(engine.kind == PREDICTOR and len(addresses_in(engine.address)) > 1 for engine in engines):
            raise ValueError("a route of several addresses over TLS needs predictor-tls-server-name")

    @field_validator("predictor_credential_file")
    @classmethod
    def _usable_credential(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_credential(value)
        return value

    def worker_processes(self) -> int:
        """Return the number of processes that serve on the port."""
        return self.workers or usable_cores()

    def tenant_limits(self) -> Limits:
        """Return the limits of each tenant."""
        return Limits(self.tenant_requests_per_second, self.tenant_burst, self.tenant_in_flight)


class FrontendSettings(EngineSettings):
    """Routes each prediction to the engine that the model's manifest names.

    Every setting is a flag or an environment variable (in brackets); flags win.
    """

    model_config = service_settings("INTENT_FRONTEND_", "frontend")

    routes: str = Field(
        default="intent-classification=predictor://127.0.0.1:51002",
        description="the engine of each algorithm, as algorithm=kind://host:port, separated by commas; the kind is"
        " predictor, torchserve or open-inference; the host may be a name of several replicas, or ip:port of each may"
        " follow",
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="models are spread over replicas in so many groups, and calls hold one; 0: enough for a name or a"
        " list, and 1 for one address",
    )

    @field_validator("routes")
    @classmethod
    def _well_written(cls, value: str) -> str:
        parse_routes(value)
        return value

    @model_validator(mode="after")
    def _named(self) -> Self:
        self.check_names(parse_routes(self.routes).values())
        return self
