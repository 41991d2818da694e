"""Where the processes of this machine keep what they count, settled before the library that counts is imported."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def start_counting(portal_dir: Path) -> None:
    """Let this process, a web process or a worker, count for /metrics, and its forks after it.

    Call it before prometheus_client is imported, which asks once how it shall count.
    """
    use_directory(portal_dir)
    from hotpatch_portal import metrics

    metrics.listen()


def use_directory(portal_dir: Path) -> None:
    """Make the directory of the files, and let the library know it.

    One that cannot be written to costs the sum over processes, not the process: it counts for itself.
    """
    directory = Path(os.environ.get(VARIABLE) or metrics_directory(portal_dir))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "lock").touch()
    except OSError as error:
        log.warning("metrics_of_this_process_only", directory=str(directory), reason=error.strerror)
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(directory)


def metrics_directory(portal_dir: Path) -> Path:
    """Where the files are unless the variable says otherwise."""
    return portal_dir / "metrics"


def forget_counts(portal_dir: Path) -> None:
    """Remove what earlier processes left behind. Call it while none of them runs."""
    for path in metrics_directory(portal_dir).glob("*"):
        path.unlink(missing_ok=True)
