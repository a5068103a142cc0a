"""A small volume behind a link, on which models are published, copied over and deleted, and whose disk gets full."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from serving.volume.publishing import publish
from tests.chaos.tenants import Tenant, Version

_SIZE: Final = "64m"
# Longer than a service's check of files, and shorter than the second for which files that change are not loaded.
_PAUSES: Final = (0.0, 0.05, 0.3)
# Time stamps as another machine's clock, or a tool that restores time stamps, sets them.
_STAMPS: Final = (0.0, -300.0, 300.0, -1e8)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make ``folder`` a disk of its own; yield whether that was possible, which takes a superuser."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)], check=False)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Volume:
    """The volume, and what happens to it. One thread changes it.

    Args:
        disk: folder of the disk.
        tenants: tenants whose models are on the volume.
        chance: source of what is chosen by chance.
    """

    def __init__(self, disk: Path, tenants: Sequence[Tenant], chance: random.Random) -> None:
        self._disk = disk
        self._tenants = tenants
        self._chance = chance
        self._revisions = 0
        self.root = disk / "models"
        """Link to the folder of the current revision."""
        self._link_new_revision()

    def publish(self) -> None:
        """Publish a new version of a model."""
        tenant = self._chance.choice(self._tenants)
        self._publish(tenant, tenant.next_version())

    def copy_over(self) -> None:
        """Copy a new version over a model, file by file, as a tool does that knows nothing of us."""
        tenant = self._chance.choice(self._tenants)
        version = tenant.next_version()
        files = list(version.files(sealed=False).items())
        self._chance.shuffle(files)
        folder = self.root / tenant.model_id
        with self._there(tenant):
            for name, content in files:
                half = self._chance.randrange(len(content))
                with (folder / name).open("wb") as file:
                    file.write(content[:half])
                    file.flush()
                    time.sleep(self._chance.choice(_PAUSES))
                    file.write(content[half:])
                stamp = time.time() + self._chance.choice(_STAMPS)
                os.utime(folder / name, (stamp, stamp))
                time.sleep(self._chance.choice(_PAUSES))
            tenant.current = version

    def delete(self) -> None:
        """Delete a model, and publish it again a moment later."""
        tenant = self._chance.choice(self._tenants)
        shutil.rmtree(self.root / tenant.model_id)
        time.sleep(self._chance.choice(_PAUSES))
        self._publish(tenant, tenant.next_version())

    def swap(self) -> None:
        """Turn the link to a new revision of all models, as git-sync does, and delete the former."""
        former = self.root.resolve()
        for tenant in self._tenants:
            if self._chance.random() < 0.5:
                tenant.current = tenant.next_version()
        self._link_new_revision()
        if self._chance.random() < 0.5:
            shutil.rmtree(former)

    def fill(self) -> None:
        """Fill the disk, try to publish, and make room again."""
        ballast = self._disk / "ballast"
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
            tenant = self._chance.choice(self._tenants)
            with contextlib.suppress(OSError):
                self._publish(tenant, tenant.next_version())
            time.sleep(self._chance.choice(_PAUSES))
        finally:
            ballast.unlink()

    def _publish(self, tenant: Tenant, version: Version) -> None:
        source = self._disk.parent / f"source-{tenant.model_id}"
        shutil.rmtree(source, ignore_errors=True)
        _write(source, version, sealed=False)
        publish(source, self.root.resolve(), tenant.model_id, replace=True)
        tenant.current = version

    @contextlib.contextmanager
    def _there(self, tenant: Tenant) -> Iterator[None]:
        """Publish the model again if the disk is too small for what was begun."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._publish(tenant, tenant.next_version())

    def _link_new_revision(self) -> None:
        self._revisions += 1
        revision = self._disk / f"revision-{self._revisions}"
        for tenant in self._tenants:
            _write(revision / tenant.model_id, tenant.current, sealed=self._chance.random() < 0.5)
        kept = {revision, self.root.resolve()}
        for old in self._disk.glob("revision-*"):
            if old not in kept:
                shutil.rmtree(old)
        link = self._disk / "link"
        link.symlink_to(revision.name)
        link.replace(self.root)


def _write(folder: Path, version: Version, *, sealed: bool) -> None:
    folder.mkdir(parents=True)
    for name, content in version.files(sealed=sealed).items():
        (folder / name).write_bytes(content)
