"""What Prometheus reads: what the processes of this machine have counted, and what the database holds.

Every web and worker process writes its counters into files of its own, below one directory; a scrape adds them up, so that
whichever process answers tells the same. What waits and runs is read from the database at the scrape, and is the same on
every machine. docs/operations.md#metrics lists every name.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from updates.engine import telemetry
from updates.engine.telemetry import Called, Moved
from updates.selectors.load import kinds_of_connections, measure_load

log = structlog.get_logger(__name__)
# A scrape must end before Prometheus gives up (10 s), and must not hold up anybody.
STATEMENT_SECONDS = 2.0
# The file of ended processes; no process has this id.
ENDED = "0"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # the format that every Prometheus reads

disable_created_metrics()  # the `_created` samples: no dashboard and no alert uses them
_counted = CollectorRegistry()
TRANSITIONS = Counter(
    "hotpatch_operation_transitions",
    "Operations that went from one state to another.",
    ["kind", "from", "to"],
    registry=_counted,
)
CALLS = Histogram(
    "hotpatch_connector_call_seconds",
    "How long calls of connectors took; a call is about many machines.",
    ["connector", "call", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
    registry=_counted,
)
ASKED = Counter(
    "hotpatch_connector_operations",
    "Operations that connectors were called for.",
    ["connector", "call", "outcome"],
    registry=_counted,
)
REQUESTS = Histogram(
    "hotpatch_web_request_seconds",
    "How long pages took, from the whole request to the answer.",
    ["view", "method", "status"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=_counted,
)


# --- files of the processes --------------------------------------------------------------------------------------


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Nobody else adds up meanwhile."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fold_in_ended(directory: Path) -> None:
    """Add what ended processes have counted to one file, and remove theirs: no count falls, and no file stays."""
    for path in directory.glob("*_*.db"):
        kind, _, pid = path.stem.rpartition("_")
        if pid == ENDED or not pid.isdigit() or _lives(int(pid)):
            continue
        taken = path.rename(path.with_suffix(".ended"))  # killed here, we lose a count and never add it twice
        sums = MmapedDict(str(directory / f"{kind}_{ENDED}.db"))
        with suppress(struct.error, RuntimeError):  # it was killed while it made its file
            for key, value, timestamp, _position in MmapedDict.read_all_values_from_file(str(taken)):
                sums.write_value(key, sums.read_value(key)[0] + value, timestamp)
        sums.close()
        taken.unlink()


def _counted_here() -> Iterable[Metric]:
    """What this process has counted; with a directory, what all of this machine have."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not directory:
        return list(_counted.collect())
    with _alone(Path(directory)):
        fold_in_ended(Path(directory))
        return list(MultiProcessCollector(None, directory).collect())


# --- what is counted ---------------------------------------------------------------------------------------------


def count_moved(moved: Moved) -> None:
    """Operations of a kind went from one state to another."""
    TRANSITIONS.labels(moved.kind, moved.from_state, moved.to_state).inc(moved.count)


def count_called(called: Called) -> None:
    """A connector was called once, for many operations."""
    kind = _kind_of(called.connection_id)
    CALLS.labels(kind, called.call, called.outcome).observe(called.seconds)
    ASKED.labels(kind, called.call, called.outcome).inc(called.count)


_kinds: dict[int, str] = {}


def _kind_of(connection_id: int) -> str:
    """The kind of a connection, which never changes: read once. Counting never fails for what it counts."""
    if connection_id not in _kinds:
        with suppress(DatabaseError, InterfaceError):
            _kinds.update(kinds_of_connections())
    return _kinds.get(connection_id, "unknown")


def listen() -> None:
    """Count what the engine tells: sets that changed state, and calls of connectors."""
    if count_moved not in telemetry.on_moved:
        telemetry.on_moved.append(count_moved)
        telemetry.on_called.append(count_called)


# --- the scrape --------------------------------------------------------------------------------------------------


class _Portal(Collector):
    """Everything, as one collector that is asked once."""

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("hotpatch_build_info", "The version that runs.", labels=["version"])
        build.add_metric([settings.VERSION], 1)
        yield build
        yield from _counted_here()
        yield from _from_database()


def _from_database() -> Iterator[Metric]:
    """What waits, what runs, who works. Where the database does not answer in time, one number says so."""
    answered = GaugeMetricFamily("hotpatch_database_answered", "Whether the database answered this scrape in time.")
    try:
        load = measure_load(seconds=STATEMENT_SECONDS)
    except (DatabaseError, InterfaceError) as error:
        log.warning("metrics_without_database", error=str(error).strip().split("\n")[0])
        answered.add_metric([], 0)
        yield answered
        return
    answered.add_metric([], 1)
    yield answered
    names = ("connection", "connector")
    queued = GaugeMetricFamily("hotpatch_operations_queued", "Operations that wait to be started.", labels=names)
    running = GaugeMetricFamily("hotpatch_operations_in_flight", "Operations that were started.", labels=names)
    overdue = GaugeMetricFamily(
        "hotpatch_operations_overdue_seconds", "For how long the oldest operation that is due has been.", labels=names
    )
    paused = GaugeMetricFamily(
        "hotpatch_connection_paused_seconds", "Until a connection starts anything again; 0: not paused.", labels=names
    )
    for one in load.connections:
        labels = [one.name, one.kind]
        queued.add_metric(labels, one.queued)
        running.add_metric(labels, one.in_flight)
        overdue.add_metric(labels, one.overdue_seconds)
        paused.add_metric(labels, one.paused_seconds)
    yield from (queued, running, overdue, paused)
    resting = GaugeMetricFamily(
        "hotpatch_budget_resting_seconds",
        "Until a budget that rests is drawn on again; those that rest alone are told.",
        labels=["connection", "budget"],
    )
    for name, budget, seconds in load.resting:
        resting.add_metric([name, budget], seconds)
    yield resting
    workers = GaugeMetricFamily(
        "hotpatch_worker_silent_seconds", "Since a worker was last heard of.", labels=["worker"]
    )
    for name, seconds in load.workers.items():
        workers.add_metric([name], seconds)
    yield workers


def render() -> bytes:
    """The answer to a scrape, in `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(_Portal())
    return generate_latest(registry)
