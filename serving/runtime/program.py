"""The kinds of processes that this project has."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload


@dataclass(frozen=True, slots=True)
class Program:
    """A kind of process.

    ``build`` is named instead of given: a worker, which is a process of its own, may be the one that builds.
    """

    name: str
    build: str
    """Where the function is that makes the workload of settings: ``module:function``."""

    def builder(self) -> Callable[[ServerSettings], Workload]:
        """Return that function, its module imported."""
        module, _, name = self.build.partition(":")
        builder: Callable[[ServerSettings], Workload] = getattr(importlib.import_module(module), name)
        return builder
