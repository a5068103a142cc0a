"""The calls of a service as metrics: how many, how they ended, and how long they took."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from grpc import StatusCode
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.histogram import Histogram

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of how long a call may take, in seconds."""

MOST_ENDS: Final = 48
"""Methods and codes that have a histogram each; those that come later share one a code."""

OTHERS: Final = "others"
"""The method of those."""

_OK: Final = StatusCode.OK
_BOUNDS: Final = [*SECONDS]


class CallTimes:
    """A :class:`~serving.transport.guards.CallObserver` that counts. Belongs to one event loop; read by any thread."""

    __slots__ = ("_answered", "_ended")

    def __init__(self) -> None:
        self._answered: dict[str, Histogram] = {}
        """Of calls that ended with OK, by method. The same histograms are among all of them."""
        self._ended: dict[tuple[str, str], Histogram] = {}
        """By method and code. A pair stays, so that no counter falls."""

    def ended(self, method: str, code: StatusCode, seconds: float) -> None:
        """Count a call. Every call pays for it, so it does the least that can be done."""
        histogram = self._answered.get(method) if code is _OK else None
        if histogram is None:
            histogram = self._histogram_of(method, code)
        histogram.counts[bisect_left(_BOUNDS, seconds)] += 1
        histogram.total += seconds

    def ends(self) -> list[tuple[str, str, Histogram]]:
        """Return the histogram of each method and code, the package left out of the method."""
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
    """Collects what was counted of calls.

    Args:
        times: durations of the calls that have ended.
        in_flight: returns the number of calls that have not.
    """

    def __init__(self, times: CallTimes, in_flight: Callable[[], int]) -> None:
        self._times = times
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now. Called in any thread."""
        family = HistogramMetricFamily(
            "intent_request_seconds", "Calls, from their arrival to their end.", labels=["method", "code"]
        )
        for method, code, histogram in self._times.ends():
            histogram.add_to(family, [method, code])
        yield family
        yield GaugeMetricFamily("intent_requests_in_flight", "Calls that are served now.", value=self._in_flight())


def without_package(method: str) -> str:
    """Return ``Service/Method`` of ``package.Service/Method``; a path of plain HTTP stays as it is."""
    service, slash, name = method.partition("/")
    return method if " " in service else f"{service.rpartition('.')[2]}{slash}{name}"
