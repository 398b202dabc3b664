"""The figures of many workers as those of one server, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

OF_A_PROCESS: Final = ("process_", "python_")
"""How figures begin that are a process's own, whatever they count."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Totals:
    """Counters and histograms added up; all else labelled by its worker.

    What workers counted that are gone stays in the sums: a counter that fell would look to
    Prometheus like one that began anew, and all of it as counted since.
    """

    def __init__(self) -> None:
        self._departed: dict[str, Metric] = {}

    def keep(self, figures: str) -> None:
        """Keep what a worker counted that is gone."""
        for family in text_string_to_metric_families(figures):
            if _is_summed(family):
                _add(self._departed, family)

    def expose(self, current: Mapping[str, str], leaving: list[str]) -> bytes:
        """The figures of those by that name, and of those that count on but are replaced."""
        families: dict[str, Metric] = {}
        for name, figures in current.items():
            for family in text_string_to_metric_families(figures):
                if _is_summed(family):
                    _add(families, family)
                else:
                    _label(families, family, name)
        for figures in leaving:
            for family in text_string_to_metric_families(figures):
                if _is_summed(family):
                    _add(families, family)
        for family in self._departed.values():
            _add(families, family)
        return generate_latest(_Collected(families))


class _Collected:
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def _is_summed(family: Metric) -> bool:
    return family.type in ("counter", "histogram") and not family.name.startswith(OF_A_PROCESS)


def _take_family(families: dict[str, Metric], family: Metric) -> Metric:
    if family.name not in families:
        families[family.name] = Metric(family.name, family.documentation, family.type)
    return families[family.name]


def _add(families: dict[str, Metric], family: Metric) -> None:
    total = _take_family(families, family)
    places = {_key(sample): place for place, sample in enumerate(total.samples)}
    for sample in family.samples:
        place = places.get(_key(sample))
        if place is None:
            total.samples.append(sample)
        else:
            value = total.samples[place].value + sample.value
            total.samples[place] = sample._replace(value=value)


def _label(families: dict[str, Metric], family: Metric, worker: str) -> None:
    labelled = _take_family(families, family)
    for sample in family.samples:
        labelled.samples.append(sample._replace(labels={"worker": worker, **sample.labels}))


def _key(sample: Sample) -> Key:
    return sample.name, tuple(sorted(sample.labels.items()))
