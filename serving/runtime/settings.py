"""Settings: declared once in a typed class; read from flags and environment variables by composition roots."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    FilePath,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from intent_serving_client.addresses import parse_host
from serving.access.access_map import read_access_map
from serving.call.counters import AccessCounters
from serving.domain.byte_sizes import Bytes
from serving.files.material import TlsFiles
from serving.runtime.variables import is_injected_port
from serving.telemetry.call_log import LogCalls
from serving.telemetry.dialects import OURS, parse_metric_names
from serving.telemetry.logs import LogFormat, LogLevel
from serving.workers.membership import Membership

EXIT_WRONG_SETTINGS: Final = 2
"""Exit code of a process that did not start because of its settings; the same as that of a command with wrong flags."""

# Values of a setting that is on or off, as pydantic reads them.
_ON: Final = ("true", "t", "yes", "y", "on", "1")
_OFF: Final = ("false", "f", "no", "n", "off", "0")
_BOOLEANS: Final = dict.fromkeys(_ON, True) | dict.fromkeys(_OFF, False)
# Byte order mark of an editor, at the beginning of a value that was read from a file.
_MARK: Final = "\ufeff"
_VARIABLE_AT_END: Final = re.compile(r" \[[A-Z0-9_]+\]\Z")
_ENDPOINT: Final = r"^((https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})?$"

Seconds = Annotated[float, Field(ge=0.0, le=86_400.0, allow_inf_nan=False)]
MOST: Final = (1 << 31) - 1
"""Largest number of things that a setting may allow: that of gRPC's and HTTP/2's own settings."""
Port = Annotated[int, Field(ge=0, le=65_535)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Transport = Literal["http2", "grpcio"]
TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)


def known_transport(value: Any) -> Any:
    """Return ``value``.

    Raises:
        ValueError: ``value`` names a removed transport; the message says what to write instead.
    """
    if value == "envoy":
        raise ValueError(
            "envoy is no longer supported; http2, the default, is faster: omit the setting, or set it to http2"
        )
    return value


def _known_metric_names(value: str) -> str:
    parse_metric_names(value)
    return value


def _folder(value: Path) -> Path:
    # A folder that exists but cannot be read now is not a wrong setting: the service says so, and waits for the folder.
    try:
        is_folder = stat.S_ISDIR(value.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except OSError:
        is_folder = True
    if not is_folder:
        raise PydanticCustomError("path_not_directory", "Path does not point to a directory")
    return value


def service_settings(prefix: str, program: str) -> SettingsConfigDict:
    """Return the configuration of a service's settings class: ``PREFIX_NAME`` variables and ``--name`` flags."""
    return SettingsConfigDict(
        env_prefix=prefix,
        cli_prog_name=program,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
        cli_enforce_required=False,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
    )


class ServerSettings(BaseSettings):
    """Settings common to both services."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            # A subclass that inherits the field has a different variable.
            description = _VARIABLE_AT_END.sub("", field.description or "")
            field.description = f"{description} [{variable_of(cls, name)}]"

    model_dir: Annotated[Path, AfterValidator(_folder)] = Field(
        default=Path("/models"),
        validation_alias=AliasChoices("model_dir", "MODEL_DIR"),
        description="folder of the shared volume with one folder per model; may be a link that is swapped",
    )
    host: Annotated[str, AfterValidator(parse_host)] = Field(
        default="127.0.0.1",
        description="name or address to listen on; 0.0.0.0: all addresses of IPv4; [::]: of IPv6 too",
    )
    port: Port = Field(default=51001, description="port to listen on; 0: a free port, named in the log line 'ready'")
    max_message_bytes: Bytes = Field(
        default=1 << 20,
        ge=1 << 10,
        le=1 << 30,
        description="maximum size of a request, in bytes, or as 4MiB; larger requests are refused with"
        " RESOURCE_EXHAUSTED",
    )
    max_document_bytes: Bytes = Field(
        default=1 << 16, ge=1, le=1 << 30, description="maximum size of a document, in bytes of UTF-8"
    )
    max_batch_size: int = Field(
        default=4096, ge=1, le=1 << 20, description="maximum number of requests in a batch call"
    )
    max_in_flight: int = Field(
        default=16_384,
        ge=1,
        le=MOST,
        description="maximum number of calls that are served, or wait to be served, at the same time",
    )
    max_waiting: int = Field(
        default=16_384,
        ge=0,
        le=MOST,
        description="maximum number of these calls that wait, once the service has found that it can serve only fewer"
        " at the same time",
    )
    min_in_flight: int = Field(
        default=16,
        ge=1,
        le=MOST,
        description="number of calls of a method that are always served at the same time, however long they take",
    )
    latency_goal_seconds: Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)] = Field(
        default=0.5,
        description="time that calls should take at most, in seconds; if they take longer, and longer than without"
        " load, fewer are served at the same time",
    )
    latency_tolerance: Annotated[float, Field(ge=1.0, le=1000.0, allow_inf_nan=False)] = Field(
        default=4.0,
        description="multiple of the time without load that calls may take, if that is longer than the latency goal",
    )
    max_streams_per_connection: int = Field(
        default=1024, ge=1, le=MOST, description="maximum number of calls at the same time on a connection"
    )
    max_connections: int = Field(
        default=16_384,
        ge=1,
        le=MOST,
        description="maximum number of connections at the same time, on the transport http2; further ones are closed",
    )
    default_deadline_seconds: Seconds = Field(
        default=30.0, description="deadline of calls that arrive without one, in seconds"
    )
    file_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="number of models, or manifests, that are read at once, not counting slow ones",
    )
    freshness_seconds: Seconds = Field(
        default=1.0, description="minimum time between two checks of a model's files for changes, in seconds"
    )
    connection_age_seconds: Annotated[float, Field(ge=1.0, le=86_400.0, allow_inf_nan=False)] = Field(
        default=1800.0,
        description="age at which a caller's connection is renewed, in seconds; within it, callers find new replicas",
    )
    drain_delay_seconds: Seconds = Field(
        default=0.0,
        description="time after SIGTERM for load balancers to see NOT_SERVING before calls are refused, in seconds",
    )
    drain_grace_seconds: Seconds = Field(
        default=20.0, description="time after the drain delay for calls in flight to end, in seconds"
    )
    transport: Transport = Field(
        default="http2",
        description="server implementation: http2 is several times as fast as grpcio, and also serves the REST API of"
        " the Open Inference Protocol",
    )
    tls_certificate: FilePath | None = Field(
        default=None, description="PEM file of the service's certificate; if set, only TLS is accepted"
    )
    tls_key: FilePath | None = Field(default=None, description="PEM file of the private key of that certificate")
    tls_client_authority: FilePath | None = Field(
        default=None, description="PEM file of the authority that must have signed the callers' certificates"
    )
    access_file: FilePath | None = Field(
        default=None,
        description="JSON file of the callers and their rights; if set, all other callers are refused. Checked for"
        " changes every second",
    )
    health_port: Port = Field(
        default=0,
        description="port for health checks only, never encrypted, for probes that do not support TLS; 0: none",
    )
    health_file: Path | None = Field(
        default=None,
        description="file on a local file system in which the service notes its health once a second, for health checks"
        " of containers; see docs/containers.md",
    )
    metrics_port: Port = Field(default=0, description="port that Prometheus scrapes, over plain HTTP; 0: none")
    metrics_models: int = Field(
        default=20,
        ge=0,
        le=1000,
        description="number of models, the busiest, with metrics of their own; each has up to 45 series",
    )
    metrics_names: Annotated[str, AfterValidator(_known_metric_names)] = Field(
        default=OURS,
        description="sets of metric names, separated by commas: intent is always included; triton and modelmesh add the"
        " names that their dashboards use",
    )
    trace_endpoint: Annotated[str, Field(pattern=_ENDPOINT)] = Field(
        default="",
        description="host:port that traces are sent to, with OTLP over gRPC; https://host:port for TLS; empty: none",
    )
    trace_share: Share = Field(
        default=0.01,
        description="share of the calls without a traceparent that are traced; for others, the traceparent decides",
    )
    traces_per_second: Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)] = Field(
        default=10.0,
        description="maximum number of traces started here per second, however busy the service is; 0: no limit",
    )
    log_calls: LogCalls = Field(
        default="failed", description="calls that are logged, one line each; none: only the service's own faults"
    )
    log_documents: bool = Field(
        default=False,
        description="whether these lines include the beginning of the documents, which are personal data of callers",
    )
    log_level: LogLevel = Field(default="info", description="minimum severity of the log lines that are written")
    log_format: LogFormat = Field(
        default="auto", description="format of log lines; auto: console on a terminal, json elsewhere"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of values: arguments, then the environment without the variables of an orchestrator."""
        del settings_cls, dotenv_settings, file_secret_settings
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = {
                name: None if value is None else value.removeprefix(_MARK)
                for name, value in env_settings.env_vars.items()
                if not is_injected_port(name, value or "")
            }
        return init_settings, env_settings

    # Neither a flag nor a variable: only a supervisor creates workers.
    _membership: Membership | None = PrivateAttr(default=None)

    @property
    def membership(self) -> Membership | None:
        """Membership of this process among a supervisor's workers; ``None`` in a process that serves alone."""
        return self._membership

    def of_worker(self, membership: Membership) -> Self:
        """Return the settings of the worker with this membership."""
        settings = self.model_copy()
        settings._membership = membership  # noqa: SLF001 - set on a new copy
        return settings

    def worker_processes(self) -> int:
        """Return the number of processes that serve on the port."""
        return 1

    @field_validator("transport", mode="before")
    @classmethod
    def _known_transport(cls, value: Any) -> Any:
        return known_transport(value)

    @field_validator("access_file")
    @classmethod
    def _usable_access(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_access_map(value, AccessCounters())
        return value

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls-certificate and tls-key belong together; set both or none")
        if self.tls_client_authority is not None and self.tls_certificate is None:
            raise ValueError("tls-client-authority needs tls-certificate and tls-key")
        return self

    def names_of_metrics(self) -> frozenset[str]:
        """Return the naming schemes of the metrics, as constants of :mod:`serving.telemetry.dialects`."""
        return parse_metric_names(self.metrics_names)

    def tls(self) -> TlsFiles | None:
        """Return the TLS files; ``None`` if none are configured."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_authority)


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load_settings(kind: type[AnySettings], arguments: Sequence[str] | None = None) -> AnySettings:
    """Return settings from ``arguments`` (default: the command line) and the environment; flags take precedence.

    Exits with code 2 and one message that names every fault if a value is wrong, and with 0 after ``--help``.
    """
    try:
        given = _with_flag_pairs(kind, sys.argv[1:] if arguments is None else arguments)
        return CliApp.run(kind, cli_args=given)
    except ValidationError as error:
        faults = [_fault(kind, fault) for fault in error.errors(include_url=False)]
    except SettingsError as error:
        faults = [str(error)]
    lines = [f"{kind.model_config['cli_prog_name']}: wrong settings, not started:", *faults]
    sys.stderr.write("\n  ".join(lines) + "\n")
    raise SystemExit(EXIT_WRONG_SETTINGS)


def _with_flag_pairs(kind: type[BaseSettings], arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with ``--name`` or ``--no-name`` for the former ``--name true`` and ``--name=false``."""
    flags = {f"--{name.replace('_', '-')}" for name, field in kind.model_fields.items() if field.annotation is bool}
    given: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if equals and flag in flags and value.lower() in _BOOLEANS:
            given.append(_flag(flag, is_on=_BOOLEANS[value.lower()]))
        elif given and given[-1] in flags and argument.lower() in _BOOLEANS:
            given[-1] = _flag(given[-1], is_on=_BOOLEANS[argument.lower()])
        else:
            given.append(argument)
    return given


def _flag(name: str, *, is_on: bool) -> str:
    return name if is_on else f"--no-{name.removeprefix('--')}"


def variable_of(kind: type[BaseSettings], name: str) -> str:
    """Return the environment variable of the field ``name``."""
    alias = kind.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return f"{kind.model_config['env_prefix']}{name}".upper()


def variables_of(kind: type[BaseSettings]) -> frozenset[str]:
    """Return the environment variables of all fields."""
    return frozenset(variable_of(kind, name) for name in kind.model_fields)


def _fault(kind: type[BaseSettings], fault: ErrorDetails) -> str:
    name = str(fault["loc"][0]).lower() if fault["loc"] else ""
    if name not in kind.model_fields:
        return f"{name}: {fault['msg']}"
    flag = "--" + name.replace("_", "-")
    given = str(fault["input"]) if isinstance(fault["input"], PurePath) else fault["input"]
    return f"{flag} (or {variable_of(kind, name)}) is {given!r}: {fault['msg'].removeprefix('Value error, ')}"
