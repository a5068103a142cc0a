"""A workload whose certificate is watched for changes from start to close."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from serving.call.closing import close_in_order
from serving.files.certificate_metrics import CertificateCollector
from serving.files.certificates import Certificates
from serving.files.following import Following
from serving.runtime.workload import Workload


def with_certificates(workload: Workload, certificates: Certificates) -> Workload:
    """Return ``workload`` with ``certificates`` checked for changes while it serves, and reported in its metrics."""
    following: Following | None = None

    async def get_ready() -> None:
        nonlocal following
        following = Following(certificates.look, "certificate")
        await workload.get_ready()

    async def close() -> None:
        if following is not None:
            await following.close()

    collectors = [CertificateCollector(certificates), *workload.collectors]
    return replace(
        workload, get_ready=get_ready, close=partial(close_in_order, close, workload.close), collectors=collectors
    )
