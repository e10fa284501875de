"""``/metrics`` for Prometheus: figures of requests, study, models and process. No label holds anything a person has named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.store.study import Study

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STATES = ("running", "done", "stopped", "failed")


class Metrics:
    """Counts answers, and looks at the study when somebody asks.

    Args:
        study: which is served.
        versions: of the served models by name; 0 for none trained yet.
        trainings: the newest training's statistics by model.
    """

    def __init__(self, study: Study, versions: Callable[[], dict[str, int]], trainings: Callable[[], dict[str, dict]]):
        self.study, self.versions, self.trainings = study, versions, trainings
        self.registry = CollectorRegistry()  # its own: a process may make several apps
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._answers = Counter(
            "landmarklabel_requests", "Answers by route and status", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "landmarklabel_request_seconds",
            "Time to the end of an answer",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(self)

    def count(self, route: str, status: int, seconds: float) -> None:
        """One answer. ``route``: as in ``access.ROUTES``; empty for an address that is not served."""
        method, _, template = route.partition(" ")
        method, template = (method, template) if route else ("other", "none")
        self._answers.labels(method, template, str(status)).inc()
        self._seconds.labels(method, template).observe(seconds)

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """Prometheus' hook: what is known only by looking."""
        yield InfoMetricFamily("landmarklabel", "The program", {"version": __version__})
        usable = GaugeMetricFamily("landmarklabel_study_usable", "1 where the study can be read")
        try:
            figures = [*self._of_study(), *self._of_models()]
        except (LandmarkLabelError, OSError):
            figures = []
        usable.add_metric((), float(bool(figures)))
        yield from (usable, *figures)

    def _of_study(self) -> Iterator[GaugeMetricFamily]:
        images, labelled = self.study.images(), self.study.labelled()
        yield GaugeMetricFamily("landmarklabel_cases", "Cases of the study", len(images))
        yield GaugeMetricFamily("landmarklabel_cases_labelled", "Cases with landmarks by a person", len(labelled))

    def _of_models(self) -> Iterator[GaugeMetricFamily]:
        versions = GaugeMetricFamily("landmarklabel_model_version", "Live version, 0 for none", labels=("model",))
        for model, version in self.versions().items():
            versions.add_metric((model,), version)
        states = GaugeMetricFamily("landmarklabel_training", "1 for the state of the newest training", labels=("model", "state"))
        for model, stats in self.trainings().items():
            for state in _STATES:
                states.add_metric((model, state), float(stats.get("state") == state))
        yield from (versions, states)


def add_metrics_route(router: APIRouter, metrics: Metrics) -> None:
    """``GET /metrics``."""

    @router.get("/metrics", tags=["Server"], summary="Figures for Prometheus")
    def answer() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
