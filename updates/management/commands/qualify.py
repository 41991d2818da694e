"""`manage.py qualify CONNECTION`: the qualification kit; `manage.py qualify --import FILE`: what its report does to the grade."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from audit.commands import SignedCommand
from connectors.qualification import Check, Finding, Verdict, failed, skipped
from connectors.registry import UnusableError, checked, kit_of
from patching.terms import OperationKind
from updates.engine.sweep import sweep
from updates.services.operations import RequestVerdict
from updates.services.qualification import finding_of, machines_named, request_for_qualification
from vms.models import Connection, VirtualMachine
from vms.services.qualification import (
    ASSESSMENT,
    INSTALLATION,
    MOST_BYTES,
    Report,
    ReportError,
    checks_of,
    look_at_rows,
    read_report,
    report_of,
    take_over,
    without_secrets,
    write_report,
)

_SWEEP_SECONDS = 2.0
_LOOK_SECONDS = 2.0  # between two looks at an operation
_FAILED, _USAGE = 1, 2  # exit codes
_ACTS = ((ASSESSMENT, OperationKind.ASSESSMENT), (INSTALLATION, OperationKind.INSTALLATION))


class Command(SignedCommand):
    """Walk the checks of a connection, write a signed report, or take one over.

    Ends with 0 where nothing failed, with 1 where something did, with 2 where it was called wrongly.
    """

    help = "Qualify a connection: read-only checks against its real endpoint, and a signed report (docs/azure.md)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The connection, what may be done on which machine, and the file."""
        parser.add_argument("connection", metavar="CONNECTION", nargs="?", default="", help="name of the connection")
        parser.add_argument("--report", metavar="FILE", type=Path, help="where the report is written")
        parser.add_argument("--assess", metavar="MACHINE", default="", help="assess this machine, too")
        parser.add_argument(
            "--install",
            metavar="MACHINE",
            default="",
            help="install what is available of the class Definition on this machine, too; it is not rebooted",
        )
        parser.add_argument(
            "--yes",
            metavar="MACHINE",
            action="append",
            default=[],
            help="repeats the machine's name instead of typing it",
        )
        parser.add_argument("--import", metavar="FILE", dest="file", type=Path, help="take this report over")

    def handle(
        self,
        *_args: Any,
        connection: str,
        report: Path | None,
        assess: str,
        install: str,
        yes: Sequence[str],
        file: Path | None,
        **_options: Any,
    ) -> None:
        """Do the one or the other."""
        if file is not None:
            if report or assess or install or yes:
                raise _wrong("--import goes with nothing but the name of a connection.")
            self._take_over(file, connection)
            return
        row = _connection(connection)
        named = {ASSESSMENT.name: assess, INSTALLATION.name: install}
        if any(named.values()) and row.paused_until is not None and row.paused_until > timezone.now():
            raise _wrong(f"{row.name} is paused: nothing would be started.")
        report = report or Path(f"qualification-{row.pk}.json")
        if not report.parent.is_dir():
            raise _wrong(f"{report.parent} is no folder.")
        machines = {name: self._machine(row, name, machine, yes) for name, machine in named.items() if machine}
        self._walk(row, report, machines)

    # --- the kit

    def _walk(self, row: Connection, file: Path, machines: dict[str, VirtualMachine]) -> None:
        titles = {check.name: check for check in _checks(row)}
        findings: list[Finding] = []
        for found in self._findings(row, machines):
            finding = without_secrets(found, connection=row)
            findings.append(finding)
            told = "; ".join(filter(None, (finding.reason, finding.evidence)))
            self.stdout.write(f"{finding.verdict:<8} {titles[finding.name].title}: {told}".rstrip(": "))
        report = report_of(connection=row, findings=findings, now=timezone.now())
        try:
            file.write_text(write_report(report, checks=list(titles.values())) + "\n")
        except OSError as error:
            raise _wrong(f"{file}: {error.strerror}") from None
        self._sum_up(report, file)

    def _findings(self, row: Connection, machines: dict[str, VirtualMachine]) -> Iterator[Finding]:
        """Every finding, as soon as it is there. Where a look fails nothing is begun on a machine."""
        kit = kit_of(row.kind)
        assert kit is not None, "asked before"
        has_failed = False
        for finding in kit.walk(checked(row.kind, row.config), now=timezone.now()):
            has_failed |= finding.verdict is Verdict.FAILED
            yield finding
        for finding in look_at_rows(connection=row):
            has_failed |= finding.verdict is Verdict.FAILED
            yield finding
        for check, kind in _ACTS:
            finding = self._act(check, kind, machines.get(check.name), has_failed=has_failed)
            has_failed |= finding.verdict is Verdict.FAILED
            yield finding

    def _act(self, check: Check, kind: OperationKind, vm: VirtualMachine | None, *, has_failed: bool) -> Finding:
        if vm is None:
            return skipped(check.name, "it was not asked for")
        if has_failed:
            return skipped(check.name, "nothing is begun after a check that failed")
        asked = request_for_qualification(vm=vm, kind=kind)
        if asked.verdict is RequestVerdict.REFUSED or asked.operation_id is None:
            return failed(check.name, f"the portal refuses it: {asked.code}")
        self.stderr.write(f"{check.title}: {vm.name}, operation {asked.operation_id}. It goes on if this command ends.")
        # The engine ends every operation, at its deadline if not before.
        while (finding := finding_of(check=check, operation_id=asked.operation_id)) is None:
            if not sweep(seconds=_SWEEP_SECONDS, connection_kinds=[vm.connection.kind]):
                time.sleep(_LOOK_SECONDS)
        return finding

    def _sum_up(self, report: Report, file: Path) -> None:
        counts = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in Verdict)
        where = report.cloud or "no cloud of Microsoft: this report lifts no grade"
        self.stdout.write(f"{counts} at {report.address} ({where}); the report is {file}.")
        if count := report.count(Verdict.FAILED):
            raise CommandError(f"{count} check{'s' if count > 1 else ''} failed.", returncode=_FAILED)

    # --- who is meant

    def _machine(self, row: Connection, act: str, machine: str, yes: Sequence[str]) -> VirtualMachine:
        """The machine that is meant, confirmed by its name. Ends the command where it is not one, or not confirmed."""
        found = machines_named(connection=row, name=machine)
        if len(found) != 1:
            many = (
                "more than one machine: name it by its resource id"
                if found
                else "no machine; sync the connection first"
            )
            raise _wrong(f"“{machine}” is {many}. Nothing was begun.")
        (vm,) = found
        typed = vm.name if vm.name in yes else "" if yes else _typed(f"Type {vm.name} to confirm the {act}: ")
        if typed != vm.name:
            raise _wrong(f"The {act} on {vm.name} was not confirmed. Nothing was begun.")
        return vm

    # --- taking a report over

    def _take_over(self, file: Path, connection: str) -> None:
        try:
            if file.stat().st_size > MOST_BYTES:
                raise _wrong(f"{file}: This is not a report of the qualification kit.")
            row, is_news = take_over(report=read_report(file.read_text()), connection_name=connection)
        except OSError as error:
            raise _wrong(f"{file}: {error.strerror}") from None
        except (UnicodeDecodeError, ReportError) as error:
            raise CommandError(f"{file}: {error}", returncode=_FAILED) from None
        said = row.grade_words if is_news else f"{row.grade_words}, as was known already"
        self.stdout.write(f"{row.name}: {said}.")


def _connection(name: str) -> Connection:
    if not name:
        raise _wrong("Name a connection, or a report with --import.")
    row = Connection.objects.filter(name=name).first()
    if row is None:
        names = ", ".join(Connection.objects.order_by("name").values_list("name", flat=True)[:20]) or "none"
        raise _wrong(f"There is no connection called “{name}”. There are: {names}.")
    _checks(row)
    try:
        checked(row.kind, row.config)
    except UnusableError as error:
        raise CommandError(f"{row.name}: {error}", returncode=_FAILED) from None
    return row


def _checks(row: Connection) -> tuple[Check, ...]:
    try:
        return checks_of(row.kind)
    except ReportError as error:
        raise _wrong(str(error)) from None


def _typed(question: str) -> str:
    """What somebody types; empty where nobody is there."""
    if not sys.stdin.isatty():
        return ""
    try:
        return input(question).strip()
    except EOFError:
        return ""


def _wrong(words: str) -> CommandError:
    return CommandError(words, returncode=_USAGE)
