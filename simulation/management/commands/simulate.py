"""`manage.py simulate`: the year in a minute (docs/simulation.md)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from hotpatch_portal.stack.embedded import StackError
from simulation.database import own_database
from simulation.report import judge, judge_days, words_of
from simulation.run import first_days, simulate

MOST_VMS, MOST_MONTHS = 100_000, 36


class Command(BaseCommand):
    """Let the portal patch a fleet over some months of the recorded calendar, and judge what the machines went through."""

    help = "Simulate months of patching and check every rule. The same seed gives the same report."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many machines, when, how long, from which seed, and where."""
        parser.add_argument(
            "--vms", type=int, default=5_000, help=f"how many machines (default 5000, up to {MOST_VMS})"
        )
        parser.add_argument("--from", dest="begins", default="2025-01-01", help="the first day (default 2025-01-01)")
        parser.add_argument("--months", type=int, default=12, help=f"how long (default 12, up to {MOST_MONTHS})")
        parser.add_argument(
            "--record-until", default="",
            help="the portal's catalogue ends with this day, while the machines are offered all that came (default: never)",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, default=1, help="0 to 65535 (default 1)")
        parser.add_argument(
            "--here", action="store_true",
            help="in the configured database, which must hold no machines; it keeps them. Otherwise in one of its own.",
        )  # fmt: skip

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it; ends with 1 if a rule was broken."""
        begins = _day(options["begins"])
        record_until = _any_day("--record-until", options["record_until"]) if options["record_until"] else None
        if not 1 <= options["vms"] <= MOST_VMS:
            raise CommandError(f"--vms must be from 1 to {MOST_VMS}.")
        if not 1 <= options["months"] <= MOST_MONTHS:
            raise CommandError(f"--months must be from 1 to {MOST_MONTHS}.")
        if not 0 <= options["seed"] <= 65_535:
            raise CommandError("--seed must be from 0 to 65535.")
        if not options["here"]:
            raise SystemExit(self._in_a_database_of_its_own(options))
        first, last = first_days(begins, options["months"])
        try:
            with _only_errors_logged():
                call_command("seed_catalogue", if_empty=True, stdout=self.stderr)
                outcome = simulate(
                    vms=options["vms"],
                    begins=first,
                    ends=last,
                    seed=options["seed"],
                    tell=self.stderr.write,
                    record_until=record_until,
                )
        except ValueError as error:
            raise CommandError(str(error)) from None
        findings, differences = judge(outcome), judge_days(outcome)
        self.stdout.write(words_of(outcome, findings, differences), ending="")
        if findings.violations or differences:
            raise SystemExit(1)

    def _in_a_database_of_its_own(self, options: dict[str, Any]) -> int:
        """Run it in a process whose whole configuration names no other database."""
        manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
        try:
            with own_database() as url:
                environment = os.environ | {"DATABASE_URL": url}
                subprocess.run([*manage, "migrate", "--skip-checks", "--verbosity", "0"], env=environment, check=True)
                values = [f"--{name}={options[key]}" for name, key in _OPTIONS.items()]
                return subprocess.run([*manage, "simulate", "--here", *values], env=environment, check=False).returncode
        except StackError as error:
            raise CommandError(str(error)) from None


_OPTIONS = {"vms": "vms", "from": "begins", "months": "months", "seed": "seed", "record-until": "record_until"}


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Log nothing of a year's routine; afterwards the process logs as before."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _any_day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{option} must be a day like 2025-01-01, not {text}.") from None


def _day(text: str) -> date:
    day = _any_day("--from", text)
    if day.day > 28:
        raise CommandError("--from must be one of the first 28 days of a month.")
    return day
