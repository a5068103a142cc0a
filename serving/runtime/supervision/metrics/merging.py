"""Metrics of several workers, merged into those of one service.

A counter must not fall: Prometheus would mistake that for a restart, and the whole value for an increase. So the sums
include the last collected counts of workers that have ended, and the last value of a series that a worker no longer
exports because its model is no longer one of the busiest.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from serving.runtime.supervision.metrics.families import Family, Labels
from serving.runtime.supervision.metrics.rules import RANKED, WORKER_LABEL, Ranking, Rule, rule_of

MOST_SUBJECTS: Final = 4096
"""Maximum number of models and tenants whose counts are kept; the least recently exported are dropped first."""


class Key(NamedTuple):
    """A series."""

    sample: str
    labels: tuple[tuple[str, str], ...]


class Subject(NamedTuple):
    """A model, or tenant, in one ranking."""

    ranking: Ranking
    values: tuple[str, ...]


Scrapes: TypeAlias = Mapping[int, Sequence[Family]]
"""Answers of workers to one scrape, by place."""

_Present: TypeAlias = Mapping[Key, Sequence[tuple[int, float]]]
"""Series of one metric, each with the workers that export it and their values."""

_OF_GAUGES: Final[Mapping[Rule, Callable[[Sequence[float]], float]]] = {
    Rule.SUM: sum,
    Rule.GREATEST: max,
    Rule.LEAST: min,
    Rule.MEAN: lambda values: sum(values) / len(values),
}


class Merging:
    """Merges the expositions of the workers into one. Belongs to one event loop.

    Args:
        busiest: number of models, or tenants, exported from each ranking.
        most_subjects: maximum number of models and tenants whose counts are kept.
    """

    def __init__(self, busiest: int, most_subjects: int = MOST_SUBJECTS) -> None:
        self._busiest = busiest
        self._counters = _Counters(most_subjects)
        self._kinds: dict[str, tuple[str, str]] = {}
        """Type and meaning of each metric."""

    def merged(self, scrapes: Scrapes) -> list[Family]:
        """Return one exposition of the answers in ``scrapes``. REQUIRES: each answer has been learned."""
        present = _present(scrapes, self._chosen(scrapes))
        return [
            Family(name, kind, meaning, list(self._samples(name, rule_of(name, kind), present.get(name, {}))))
            for name, (kind, meaning) in self._kinds.items()
        ]

    def learn(self, worker: int, families: Sequence[Family]) -> None:
        """Record the answer of the process in the place of ``worker``. REQUIRES: that process has not ended."""
        for family in families:
            self._kinds.setdefault(family.name, (family.kind, family.meaning))
        self._counters.learn(worker, families)

    def retire(self, worker: int) -> None:
        """Keep the counts of the process in the place of ``worker``, which has ended."""
        self._counters.retire(worker)

    def _samples(self, name: str, rule: Rule, present: _Present) -> Iterator[tuple[str, Labels, float]]:
        if rule is Rule.EACH:
            for key, values in present.items():
                for worker, value in values:
                    yield key.sample, {**dict(key.labels), WORKER_LABEL: str(worker)}, value
        elif self._counters.has(name):
            for key in present if name in RANKED else self._counters.keys(name):
                yield key.sample, dict(key.labels), self._counters.total(key)
        else:
            for key, values in present.items():
                yield key.sample, dict(key.labels), _OF_GAUGES[rule]([value for _, value in values])

    def _chosen(self, scrapes: Scrapes) -> Mapping[Ranking, frozenset[Subject]]:
        """Return the busiest subjects of each ranking among those that some worker exports."""
        places: dict[Ranking, dict[Subject, int]] = {ranking: {} for ranking in RANKED.values()}
        for families in scrapes.values():
            for family in families:
                ranking = RANKED.get(family.name)
                if ranking is None:
                    continue
                known = places[ranking]
                named = dict.fromkeys(_subject(ranking, labels) for _, labels, _ in family.samples)
                for place, subject in enumerate(named):
                    known[subject] = min(place, known.get(subject, place))
        return {
            ranking: frozenset(sorted(known, key=lambda subject: self._rank(subject, known))[: self._busiest])
            for ranking, known in places.items()
        }

    def _rank(self, subject: Subject, places: Mapping[Subject, int]) -> tuple[float, int]:
        counter = subject.ranking.counter
        return -self._counters.of_subject(subject, counter) if counter else 0.0, places[subject]


class _Counters:
    """Counts by series: of each worker, of ended workers, and of all together."""

    def __init__(self, most_subjects: int) -> None:
        self._most_subjects = most_subjects
        self._keys: dict[str, dict[Key, None]] = {}
        """Series by metric, in the order in which they were first exported."""
        self._of_each: dict[int, dict[Key, float]] = defaultdict(dict)
        self._ended: dict[Key, float] = defaultdict(float)
        self._exported: dict[Key, float] = {}
        self._subjects: OrderedDict[Subject, dict[Key, str]] = OrderedDict()
        """Series of each subject, with their metrics; the least recently exported subject first."""

    def learn(self, worker: int, families: Sequence[Family]) -> None:
        known = self._of_each[worker]
        for family in families:
            if family.kind in ("gauge", "info") or rule_of(family.name, family.kind) is not Rule.SUM:
                continue
            ranking = RANKED.get(family.name)
            keys = self._keys.setdefault(family.name, {})
            for sample, labels, value in family.samples:
                key = Key(sample, tuple(labels.items()))
                keys[key] = None
                if value < known.get(key, 0.0):
                    # The worker restarted this count, as happens when a version goes on trial again.
                    self._ended[key] += known[key]
                known[key] = value
                if ranking is not None:
                    self._keep(_subject(ranking, labels), key, family.name)

    def retire(self, worker: int) -> None:
        for key, value in self._of_each.pop(worker, {}).items():
            self._ended[key] += value

    def has(self, name: str) -> bool:
        return name in self._keys

    def keys(self, name: str) -> Sequence[Key]:
        return list(self._keys[name])

    def total(self, key: Key) -> float:
        total = self._sum(key)
        # Rounding: the same addends in another order may give a slightly smaller sum.
        total = max(total, self._exported.get(key, total))
        self._exported[key] = total
        return total

    def of_subject(self, subject: Subject, counter: str) -> float:
        return sum(self._sum(key) for key in self._subjects.get(subject, {}) if key.sample == counter)

    def _sum(self, key: Key) -> float:
        return self._ended.get(key, 0.0) + sum(known.get(key, 0.0) for known in self._of_each.values())

    def _keep(self, subject: Subject, key: Key, name: str) -> None:
        self._subjects.setdefault(subject, {})[key] = name
        self._subjects.move_to_end(subject)
        if len(self._subjects) > self._most_subjects:
            _, forgotten = self._subjects.popitem(last=False)
            for each, family in forgotten.items():
                del self._keys[family][each]
                for counts in (self._ended, self._exported, *self._of_each.values()):
                    counts.pop(each, None)


def _present(scrapes: Scrapes, chosen: Mapping[Ranking, frozenset[Subject]]) -> Mapping[str, _Present]:
    """Return the series to be exported of each metric that some worker exports."""
    present: dict[str, dict[Key, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for worker, families in scrapes.items():
        for family in families:
            ranking = RANKED.get(family.name)
            for sample, labels, value in family.samples:
                if ranking is None or _subject(ranking, labels) in chosen[ranking]:
                    present[family.name][Key(sample, tuple(labels.items()))].append((worker, value))
    return present


def _subject(ranking: Ranking, labels: Labels) -> Subject:
    return Subject(ranking, tuple(labels.get(label, "") for label in ranking.subject))
