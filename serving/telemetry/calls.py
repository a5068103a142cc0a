"""Metrics of a service's calls: their number, status and duration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from grpc import StatusCode
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.histogram import Histogram

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds for the duration of calls, in seconds."""

MOST_ENDS: Final = 48
"""Maximum number of pairs of method and code with a histogram each; later pairs share one histogram per code."""

OTHERS: Final = "others"
"""Method of the shared histograms."""

_OK: Final = StatusCode.OK


class CallTimes:
    """A counting :class:`~serving.transport.guards.CallObserver`. Belongs to one event loop; any thread may read it."""

    __slots__ = ("_answered", "_ended")

    def __init__(self) -> None:
        self._answered: dict[str, Histogram] = {}
        """Histograms of calls that ended with OK, by method. The same objects are also in ``_ended``."""
        self._ended: dict[tuple[str, str], Histogram] = {}
        """Histograms by method and code. A pair is never removed, so that no counter falls."""

    def ended(self, method: str, code: StatusCode, seconds: float) -> None:
        """Count a call. Every call pays for this, so the method does as little as possible."""
        histogram = self._answered.get(method) if code is _OK else None
        if histogram is None:
            histogram = self._histogram_of(method, code)
        histogram.observe(seconds)

    def ends(self) -> list[tuple[str, str, Histogram]]:
        """Return the histogram of each method and code. Method names are without their package."""
        ended = self._ended.copy()
        return [(without_package(method), code, histogram) for (method, code), histogram in ended.items()]

    def _histogram_of(self, method: str, code: StatusCode) -> Histogram:
        end = method, code.name
        histogram = self._ended.get(end)
        if histogram is None:
            if len(self._ended) >= MOST_ENDS:
                end = OTHERS, code.name
            histogram = self._ended.setdefault(end, Histogram(SECONDS))
            if code is _OK:
                self._answered[method] = histogram
        return histogram


class CallCollector(Collector):
    """Collects the metrics of calls.

    Args:
        times: durations of calls that have ended.
        in_flight: returns the number of calls that have not ended.
    """

    def __init__(self, times: CallTimes, in_flight: Callable[[], int]) -> None:
        self._times = times
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        """Return the current value of every metric. Called in any thread."""
        family = HistogramMetricFamily(
            "intent_request_seconds", "Duration of calls, from arrival to end.", labels=["method", "code"]
        )
        for method, code, histogram in self._times.ends():
            histogram.add_to(family, [method, code])
        yield family
        yield GaugeMetricFamily("intent_requests_in_flight", "Calls that are being served.", value=self._in_flight())


def without_package(method: str) -> str:
    """Return ``Service/Method`` of ``package.Service/Method``; a plain HTTP route is returned unchanged."""
    service, slash, name = method.partition("/")
    return method if " " in service else f"{service.rpartition('.')[2]}{slash}{name}"
