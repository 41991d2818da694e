"""A database of the simulation's own: it never sees the portal's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotpatch_portal.stack.embedded import EmbeddedPostgres


@contextmanager
def own_database() -> Iterator[str]:
    """The address of an empty PostgreSQL that is there for as long as this lasts, and gone afterwards.

    Raises StackError where the machine cannot run one.
    """
    directory = Path(tempfile.mkdtemp(prefix="hp-simulation-"))
    directory.chmod(0o755)  # PostgreSQL may run as another user; its own directories are private
    server: EmbeddedPostgres | None = None
    try:
        server = EmbeddedPostgres(directory, is_throw_away=True)
        server.start()
        yield server.url
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
