"""The portal as people meet it: the one-command stack with its demo fleet, and the system's Chromium.

One stack serves the whole session (`make test` runs these tests alone). Every test gets its own browser context; the
`page` fixture is signed in, with JavaScript; `page_without_js` is signed in, without.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.steps import addresses

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The stack is ours and on loopback; these tests speak real HTTP to it.
pytestmark = pytest.mark.browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a browser test."""
    for item in items:
        if Path(item.path).is_relative_to(ROOT / "tests" / "browser"):
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Stack:
    """A running portal."""

    url: str
    username: str
    password: str
    portal_dir: Path
    process: subprocess.Popen[bytes]

    def children(self) -> dict[int, str]:
        """Command lines of the processes the supervisor started, by pid (read from /proc)."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(stat[1]) == self.process.pid:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError):
                continue
        return found

    def manage(self, *arguments: str) -> str:
        """Run a management command against this portal's database; returns what it printed."""
        environment = os.environ | json.loads((self.portal_dir / "environment.json").read_text())
        environment.pop("DJANGO_SETTINGS_MODULE", None)  # that of the tests has other password hashers
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The one-command stack with the demo fleet, in a directory of its own."""
    portal_dir = Path(tempfile.mkdtemp(prefix="hp-"))
    portal_dir.chmod(0o755)
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "PYTEST_CURRENT_TEST"}
    } | {"PORT": str(free_port()), "PORTAL_DIR": str(portal_dir), "DEMO": "1"}
    log = (portal_dir / "stack.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "manage.py", "portal"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        access = portal_dir / "access.json"
        deadline = time.monotonic() + 180
        while not access.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the stack did not start:\n{(portal_dir / 'stack.log').read_text()[-4000:]}")
            time.sleep(0.2)
        document = json.loads(access.read_text())
        yield Stack(portal_dir=portal_dir, process=process, **document)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()
        shutil.rmtree(portal_dir, ignore_errors=True)


def chromium_path() -> str:
    """Where the system's Chromium is; the test run stops with the one line to run if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.exit("No Chromium found. Run: sudo apt-get install chromium fonts-noto-cjk", returncode=4)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    flags = [*CHROMIUM_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def signed_in(stack: Stack, browser: Browser) -> dict[str, object]:
    """The cookies of the demo administrator, signed in once through the form."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(stack.url)
    page.fill("input[name=login]", stack.username)
    page.fill("input[name=password]", stack.password)
    page.click("main .button--primary")
    page.wait_for_url(lambda url: "/accounts/" not in url)
    state = context.storage_state()
    context.close()
    return dict(state)


OpenContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(stack: Stack, browser: Browser, signed_in: dict[str, object]) -> Iterator[OpenContext]:
    """Make signed-in browser contexts; keywords are Playwright's (java_script_enabled, viewport, color_scheme...)."""
    opened: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        options.setdefault("storage_state", signed_in)
        options.setdefault("viewport", {"width": 1440, "height": 1000})
        context = browser.new_context(base_url=stack.url, **options)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()


@pytest.fixture
def page(new_context: OpenContext) -> Page:
    """A signed-in page with JavaScript. A script error or a CSP violation fails the test."""
    page = new_context().new_page()
    page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
    return page


@pytest.fixture
def page_without_js(new_context: OpenContext) -> Page:
    """A signed-in page without JavaScript."""
    return new_context(java_script_enabled=False).new_page()


@pytest.fixture(scope="session")
def pages(browser: Browser, stack: Stack, signed_in: dict[str, object]) -> dict[str, str]:
    """One address of each of our page templates, by a name of its own."""
    context = browser.new_context(base_url=stack.url, storage_state=signed_in)  # type: ignore[arg-type]
    found = addresses(context.new_page())
    context.close()
    return found
