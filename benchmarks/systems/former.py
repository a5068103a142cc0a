"""An older commit of this project, with the packages that it pinned, kept between runs."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.reports.results import Kind, Part
from benchmarks.systems.ours import Ours, Source
from peers.environments import CannotInstall, environment_from, home
from peers.programs import ROOT

COMMIT: Final = "85dfda0"
"""Last commit whose services did not implement gRPC in their own process."""

_PARTS: Final = frozenset({Part.UNARY, Part.BATCHES, Part.CONNECTIONS})
_ENVOY_PINS: Final = "envoy.txt"


@dataclass(frozen=True, slots=True)
class Former:
    """An older commit and its transport."""

    commit: str = COMMIT
    """Name of the commit in git."""
    transport: str = "envoy"
    """Transport of its services."""

    def source(self) -> Source:
        """Return the commit's code, extracted to a folder and with its packages installed.

        Raises:
            CannotInstall: the commit is missing here, or a package cannot be installed.
        """
        commit = self._git("rev-parse", "--verify", "--quiet", f"{self.commit}^{{commit}}").decode().strip()
        folder = home() / "commits" / commit
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(self._git("archive", commit))) as files:
                staged = folder.with_name(f"{commit}.staged")
                files.extractall(staged, filter="data")
                staged.rename(folder)
        pins = [folder / "requirements" / name for name in ("predictor.txt", _ENVOY_PINS)]
        environment = environment_from(f"commit-{commit}", [file for file in pins if file.exists()])
        return Source(environment.python, folder)

    def systems(self) -> tuple[Ours, ...]:
        """Return both shapes, as ``intentctl up`` of that commit starts them."""
        shape = partial(
            Ours,
            kind=Kind.FORMER,
            parts=_PARTS,
            transport=self.transport,
            predictor_transport="grpcio" if self.transport == "envoy" else "",
            get_source=self.source,
        )
        return (
            shape(name="former-two-processes", title=f"commit {self.commit}, two processes", hops=2),
            shape(name="former-one-process", title=f"commit {self.commit}, one process", hops=1),
        )

    def _git(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)  # noqa: S607 - the user's git
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotInstall(f"commit {self.commit} cannot be fetched from git: {error}") from error
        return done.stdout
