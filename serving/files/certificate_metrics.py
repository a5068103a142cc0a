"""The certificate in use, as a metric."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.files.certificates import Certificates


class CertificateCollector(Collector):
    """Tells until when the certificate in use is valid."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        """Return it as it is now. Called in any thread."""
        yield GaugeMetricFamily(
            "intent_certificate_expiry_seconds",
            "End of the validity of the certificate in use, in seconds since 1970.",
            value=self._certificates.material.expires,
        )
