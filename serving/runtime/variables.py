"""Environment variables that look like settings but are not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

PREFIX: Final = "INTENT_"
"""Prefix of all variables of this project."""

# Kubernetes describes each service of a namespace in the environment of each container (docker links did before): a
# service named intent-frontend makes INTENT_FRONTEND_SERVICE_HOST and INTENT_FRONTEND_PORT=tcp://10.0.0.1:51001.
_INJECTED_NAME: Final = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_INJECTED_VALUE: Final = re.compile(r"(tcp|udp|sctp)://.*")
_PORT: Final = "_PORT"

SERVICES: Final = ("INTENT_FRONTEND_", "INTENT_PREDICTOR_", "INTENT_MODEL_SERVICE_")
"""Prefixes of the settings of the services."""

# Variables of the command line, the Compose files and the scripts, which may share an environment with the services.
_OTHERS: Final = frozenset(
    {
        "INTENT_ADDRESS",
        "INTENT_AT_TORCHSERVE",
        "INTENT_CERTIFICATES",
        "INTENT_CLIENT",
        "INTENT_CPUS",
        "INTENT_CREDENTIAL",
        "INTENT_CREDENTIAL_FILE",
        "INTENT_GRAFANA_ADDRESS",
        "INTENT_MODELS",
        "INTENT_MODELS_ACCESS",
        "INTENT_PEERS_HOME",
        "INTENT_PROMETHEUS_ADDRESS",
        "INTENT_SHARED",
        "INTENT_TAG",
        "INTENT_TLS_AUTHORITY",
        "INTENT_TLS_CERTIFICATE",
        "INTENT_TLS_KEY",
    }
)
_OF_TESTS: Final = "INTENT_TEST_"


class UnknownVariable(NamedTuple):
    """A variable that has no effect."""

    name: str
    meant: str
    """Name of the setting that was probably meant; empty if none is close."""


def is_injected(name: str, value: str) -> bool:
    """Return whether an orchestrator has set a variable, to describe a service of its network."""
    return _INJECTED_NAME.fullmatch(name.upper()) is not None or is_injected_port(name, value)


def is_injected_port(name: str, value: str) -> bool:
    """Return whether an orchestrator has set a variable that has the name of a setting, as ``INTENT_FRONTEND_PORT``.

    A name alone proves nothing: ``INTENT_MODEL_SERVICE_HOST`` is a setting, and the host of a service ``intent-model``.
    """
    return name.upper().endswith(_PORT) and _INJECTED_VALUE.fullmatch(value) is not None


def unknown_variables(
    environment: Mapping[str, str], known: Iterable[str], services: Iterable[str]
) -> Iterator[UnknownVariable]:
    """Yield the variables that look like settings of this project but are not.

    Args:
        environment: the environment of the process.
        known: names of the variables that are settings of the process.
        services: prefixes of the variables of other services, which may share the environment.
    """
    names = {*known} | _OTHERS
    # The prefix that nearly all names share would make all of them similar.
    by_end = {name.removeprefix(PREFIX): name for name in sorted(names)}
    others = (_OF_TESTS, *services)
    for name, value in sorted(environment.items()):
        # An editor's byte order mark stays in front of the first name of a file of variables.
        upper = name.upper().lstrip("\ufeff")
        if not upper.startswith(PREFIX) or is_injected(upper, value):
            continue
        if (upper in names and upper == name.upper()) or (upper not in names and upper.startswith(others)):
            continue
        meant = difflib.get_close_matches(upper.removeprefix(PREFIX), by_end, 1)
        yield UnknownVariable(name, by_end[meant[0]] if meant else "")
