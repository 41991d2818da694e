"""Where a portal of a test's own lives, and the environment that it starts in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {
    key: value
    for key, value in os.environ.items()
    if key not in {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "PORT", "HOST", "DEMO"}
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the machine may walk into, so that nothing is left outside of it."""
    directory = Path(tempfile.mkdtemp(prefix="hp-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
