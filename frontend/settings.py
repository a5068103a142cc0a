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
from serving.call.identity import ALL_MODELS
from serving.call.limits import Limits
from serving.domain.name_patterns import NamePatterns
from serving.files.material import TlsFiles, UnusableCertificate, read_material
from serving.runtime.settings import MOST, Seconds, ServerSettings, service_settings
from serving.workers.cores import usable_cores

_TORCHSERVE: Final = TorchServeOptions()


class EngineSettings(ServerSettings):
    """Settings for calls to engines and for releases."""

    workers: int = Field(
        default=1,
        ge=0,
        le=256,
        description="number of processes that serve on the port, each on a core of its own, under one more process that"
        " supervises them; 1: one process without a supervisor; 0: one process per usable core",
    )

    release_freshness_seconds: Seconds = Field(
        default=0.25,
        description="minimum time between two checks of a name's release file for changes, in seconds; for the first"
        " release of a name, freshness-seconds applies",
    )
    tenant_requests_per_second: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = Field(
        default=0.0,
        description="number of documents per second that a tenant may have classified, on average; 0: no limit. A"
        " tenant is an identity of the access file, whose own limits take precedence; without an access file, the name"
        " of a model",
    )
    tenant_burst: Annotated[float, Field(ge=0.0, le=1e9, allow_inf_nan=False)] = Field(
        default=0.0,
        description="number of documents that a tenant may send at once after a pause; 0: as many as in one second",
    )
    tenant_in_flight: int = Field(
        default=0, ge=0, le=MOST, description="number of calls that a tenant may have in flight; 0: no limit"
    )
    predictor_credential_file: FilePath | None = Field(
        default=None,
        description="file with the API key, or token, by which predictors identify this frontend; read again when it"
        " changes",
    )
    predictor_tls_authority: FilePath | None = Field(
        default=None,
        description="PEM file of the authority that signed the predictors' certificates; if set, predictors are called"
        " over TLS only. Replaced files take effect with the next connections",
    )
    predictor_tls_certificate: FilePath | None = Field(
        default=None, description="PEM file of this frontend's certificate, if predictors require one"
    )
    predictor_tls_key: FilePath | None = Field(
        default=None, description="PEM file of the private key of that certificate"
    )
    predictor_tls_server_name: str = Field(
        default="",
        description="name in the predictors' certificates; empty: the host of the route. Required for a route with"
        " several addresses",
    )
    trusted_pipelines: str = Field(
        default=ALL_MODELS,
        description="names of the pipelines whose callers may use their models without a right of their own, if their"
        ' manifests have "Rights": "pipeline"; separated by commas, and each may end with *. Empty: none; callers then'
        " need the right to each model",
    )
    calls_in_flight: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="maximum number of calls at the same time to an engine and partition, or model; queries that arrive"
        " meanwhile are sent with the next call",
    )
    torchserve_models: int = Field(
        default=_TORCHSERVE.most_models,
        ge=1,
        le=4096,
        description="maximum number of models that this frontend keeps registered at a TorchServe, each with processes"
        " of its own; beyond it, the least recently used model is unregistered",
    )
    torchserve_workers: int = Field(
        default=_TORCHSERVE.workers, ge=1, le=256, description="number of processes of each model at a TorchServe"
    )
    torchserve_batch_size: int = Field(
        default=_TORCHSERVE.batch_size,
        ge=1,
        le=4096,
        description="maximum number of requests that TorchServe gives a model at once",
    )
    torchserve_batch_delay_milliseconds: int = Field(
        default=_TORCHSERVE.batch_delay_milliseconds,
        ge=1,
        le=60_000,
        description="time that TorchServe waits for a batch to fill, in milliseconds",
    )
    torchserve_registration_seconds: Seconds = Field(
        default=_TORCHSERVE.registration_seconds,
        description="time that TorchServe may take to start a model's processes, in seconds",
    )
    torchserve_response_seconds: int = Field(
        default=_TORCHSERVE.response_seconds,
        ge=1,
        le=86_400,
        description="time after which TorchServe restarts a process that does not answer, in seconds",
    )
    torchserve_key_file: Path | None = Field(
        default=None,
        description="TorchServe's key_file.json, if TorchServe requires tokens; read again when a key is refused",
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

    def trusted(self) -> NamePatterns:
        """Return the names of the pipelines that may give their callers the right to their models."""
        return NamePatterns(name for part in self.trusted_pipelines.split(",") if (name := part.strip()))

    def worker_processes(self) -> int:
        """Return the number of processes that serve on the port."""
        return self.workers or usable_cores()

    def tenant_limits(self) -> Limits:
        """Return the limits of each tenant."""
        return Limits(self.tenant_requests_per_second, self.tenant_burst, self.tenant_in_flight)


class FrontendSettings(EngineSettings):
    """Routes each prediction to the engine that the model's manifest names.

    Every setting is a flag or an environment variable (in brackets); flags take precedence.
    """

    model_config = service_settings("INTENT_FRONTEND_", "frontend")

    routes: str = Field(
        default="intent-classification=predictor://127.0.0.1:51002",
        description="engine of each algorithm, as algorithm=kind://host:port, separated by commas; the kind is"
        " predictor, torchserve or open-inference. The host may be a name with several replicas, or the ip:port of"
        " each replica may be listed, separated by commas",
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="number of partitions in which models are spread over replicas; each call belongs to one. 0: enough"
        " for a name or a list of addresses, and 1 for a single address",
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
