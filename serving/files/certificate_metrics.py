"""Prometheus metric of the certificate in use."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.files.certificates import Certificates


class CertificateCollector(Collector):
    """Reports the expiry of the certificate in use."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        """Return the current value of the metric. Called in any thread."""
        yield GaugeMetricFamily(
            "intent_certificate_expiry_seconds",
            "Time at which the certificate in use expires, in seconds since 1970.",
            value=self._certificates.material.expires,
        )
