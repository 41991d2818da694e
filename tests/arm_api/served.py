"""The portal's own web processes, with TLS before them, on the database of a test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from ssl import create_default_context
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection

from hotpatch_portal.stack.certificate import certificate_for
from hotpatch_portal.stack.embedded import die_with_parent

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """Web processes behind TLS, until `stop`."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.certificate, key = certificate_for(directory / "tls", ["127.0.0.1", "localhost"])
        self.port, inner = free_port(), free_port()
        self.log = directory / "web.log"
        address = urlsplit(os.environ["DATABASE_URL"])
        given = {
            "DJANGO_SETTINGS_MODULE": "hotpatch_portal.settings",
            "DATABASE_URL": address._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
            "SECRET_KEY": settings.SECRET_KEY,
            "PORTAL_DIR": str(directory),
            "TLS": "1",
            **environment,
        }
        web = ["hotpatch_portal.stack.web", "--port", str(inner), "--processes", "1", "--behind-tls"]
        tls = ["hotpatch_portal.stack.tls", "--port", str(self.port), "--to", str(inner)]
        with self.log.open("wb") as output:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    cwd=ROOT,
                    env=os.environ | given,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_parent,
                )
                for command in (web, [*tls, "--certificate", str(self.certificate), "--key", str(key)])
            ]
        self._wait()

    @property
    def origin(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.port}"

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self.processes), self.log.read_text()
            with suppress(OSError):
                trusted = create_default_context(cafile=str(self.certificate))
                with urllib.request.urlopen(f"{self.origin}/healthz", context=trusted, timeout=5):
                    return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        """End what was started."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
