"""The kinds of process in this project."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload


@dataclass(frozen=True, slots=True)
class Program:
    """A kind of process.

    ``build`` is a name instead of a function: a worker, which is a separate process, may build the workload.
    """

    name: str
    build: str
    """Function that builds the workload from settings, as ``module:function``."""

    def builder(self) -> Callable[[ServerSettings], Workload]:
        """Import the module that ``build`` names and return the function."""
        module, _, name = self.build.partition(":")
        builder: Callable[[ServerSettings], Workload] = getattr(importlib.import_module(module), name)
        return builder
