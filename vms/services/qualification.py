"""Reports of the qualification kit: written and signed, read again, and what one that counts does to its connection's grade.

A report is signed with this portal's SECRET_KEY: it counts in the portal that wrote it and nowhere else (docs/adr/0014).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import transaction

from audit.services import Act, record
from audit.tags import Tag
from connectors.qualification import Check, Finding, Verdict, digest_of, failed, passed, skipped
from connectors.registry import endpoint_of, kit_of, secrets_of
from vms.models import Connection, VirtualMachine
from vms.services.discovery import DiscoveryError, discovered_page
from vms.services.inventory_rows import BadRow, RowProblem

FORMAT = 1
MOST_BYTES = 1_000_000  # of a file; a report has some ten thousand
MOST_MACHINES = 1_000  # that are read as rows
_SALT = "vms.qualification"

# What the portal itself looks at, beside the checks of the kind.
ROWS = Check("rows", "Each machine is read as a row of the portal")
KNOWN = Check("known", "The portal knows the machines that are listed", is_required=False)
# Only the first is harmless enough to be asked of everybody: a grade that says "run" is not given for reading.
ASSESSMENT = Check("assessment", "An assessment of a named machine, through the portal's engine")
INSTALLATION = Check(
    "installation", "An installation on a named machine, through the portal's engine", is_required=False
)
# Rows that are left alone on purpose: they speak against nothing.
_LEFT_ALONE = frozenset({RowProblem.LINUX, RowProblem.OS_NOT_NAMED})


class ReportError(ValueError):
    """Why a report does not count, in one English sentence."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, where and when. `cloud`: the vendor's own name of the endpoint's cloud; empty: it is another endpoint.

    `configuration` and `checks` are digests: of the connection's configuration, and of the catalogue of checks.
    """

    made_at: datetime
    portal: str
    connection_id: int
    connection_name: str
    kind: str
    configuration: str
    address: str
    cloud: str
    checks: str
    findings: tuple[Finding, ...]

    def count(self, verdict: Verdict) -> int:
        """How many checks went so."""
        return sum(finding.verdict is verdict for finding in self.findings)


def checks_of(kind: str) -> tuple[Check, ...]:
    """Every check of a connection of this kind, in the order of a report. Raises ReportError where its kind has no kit."""
    kit = kit_of(kind)
    if kit is None:
        raise ReportError(f"There is no qualification kit for connections of the kind {kind}.")
    return (*kit.checks, ROWS, KNOWN, ASSESSMENT, INSTALLATION)


def report_of(*, connection: Connection, findings: Sequence[Finding], now: datetime) -> Report:
    """The report of these findings. It is kept that the kit was run, and how it went."""
    address, cloud = endpoint_of(connection.kind, connection.config)
    report = Report(
        made_at=now,
        portal=settings.VERSION,
        connection_id=connection.pk,
        connection_name=connection.name,
        kind=connection.kind,
        configuration=connection.configuration_digest,
        address=address,
        cloud=cloud,
        checks=digest_of(checks_of(connection.kind)),
        findings=tuple(findings),
    )
    record(acts=[_act(Tag.QUALIFICATION_RUN, connection, report)])
    return report


def _act(tag: Tag, connection: Connection, report: Report) -> Act:
    detail: dict[str, Any] = {"endpoint": report.address, "at": report.made_at.isoformat()}
    detail |= {verdict.value: report.count(verdict) for verdict in Verdict}
    return Act(tag, str(connection.pk), connection.name, "vms.connection", detail=detail)


def without_secrets(finding: Finding, *, connection: Connection) -> Finding:
    """The finding without the secrets that the connection names, should the other side have repeated one."""
    evidence, reason = finding.evidence, finding.reason
    for secret in secrets_of(connection.kind, connection.config):
        for line in filter(None, (secret.reveal(), *secret.reveal().splitlines())):
            evidence, reason = evidence.replace(line, "…"), reason.replace(line, "…")
    return replace(finding, evidence=evidence, reason=reason)


# --- the file --------------------------------------------------------------------------------------------------------


def write_report(report: Report, *, checks: Sequence[Check]) -> str:
    """The report as a file holds it: JSON that people can read, with its signature."""
    titles = {check.name: check for check in checks}
    body = asdict(report) | {
        "format": FORMAT,
        "made_at": report.made_at.isoformat(),
        "findings": [
            asdict(finding) | {"title": titles[finding.name].title, "is_required": titles[finding.name].is_required}
            for finding in report.findings
        ],
    }
    return json.dumps({"report": body, "signature": _signer().signature(_plain(body))}, indent=2, ensure_ascii=False)


def read_report(text: str) -> Report:
    """The report that a file holds. Raises ReportError if it is none, or if a letter of it was changed."""
    try:
        kept = json.loads(text)
        body, signature = kept["report"], kept["signature"]
        _signer().unsign(f"{_plain(body)}:{signature}")
    except signing.BadSignature:
        raise ReportError(
            "The signature does not fit: the report was changed, or another portal (or another SECRET_KEY) wrote it."
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ReportError("This is not a report of the qualification kit.") from None
    if body["format"] != FORMAT:
        raise ReportError(f"The report has the format {body['format']}; this portal reads {FORMAT}. Run the kit again.")
    named = {name: body[name] for name in Report.__slots__ if name not in {"made_at", "findings"}}
    findings = tuple(
        Finding(one["name"], Verdict(one["verdict"]), one["evidence"], one["reason"]) for one in body["findings"]
    )
    return Report(made_at=datetime.fromisoformat(body["made_at"]), findings=findings, **named)


def _plain(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _signer() -> signing.Signer:
    return signing.Signer(salt=_SALT)


# --- the grade -------------------------------------------------------------------------------------------------------


@transaction.atomic
def take_over(*, report: Report, connection_name: str = "") -> tuple[Connection, bool]:
    """Let the connection's grade say what the report proves; the connection, and whether that is news.

    Raises ReportError where it proves nothing: the wrong connection (`connection_name` is the one that is meant; empty: the
    report's), another configuration or catalogue of checks, an endpoint that is not the vendor's, a required check without a pass.
    """
    connection = Connection.objects.select_for_update().filter(pk=report.connection_id, kind=report.kind).first()
    if connection is None or (connection_name and connection.name != connection_name):
        raise ReportError(f"The report is about another connection: {report.connection_name}.")
    if not report.configuration or report.configuration != connection.configuration_digest:
        raise ReportError(f"{connection.name} was changed since the report was made. Run the kit again.")
    if report.checks != digest_of(checks_of(connection.kind)):
        raise ReportError("The report is of another catalogue of checks. Run the kit of this version.")
    if endpoint_of(connection.kind, connection.config) != (report.address, report.cloud) or not report.cloud:
        raise ReportError(
            f"{report.address} is not a cloud of Microsoft, or certificates of your own vouch for it: the grade of "
            f"{connection.name} stays “real protocol”."
        )
    if without := _without_a_pass(report):
        raise ReportError(f"Checks that are required did not pass: {', '.join(without)}.")
    is_news = connection.qualified_at is None or connection.qualified_at < report.made_at
    if is_news:
        connection.qualification = _kept(report)
        connection.save(update_fields=["qualification"])
        record(acts=[_act(Tag.QUALIFICATION_TAKE_OVER, connection, report)])
    return connection, is_news


def _without_a_pass(report: Report) -> list[str]:
    good = {finding.name for finding in report.findings if finding.verdict is Verdict.PASSED}
    return [check.name for check in checks_of(report.kind) if check.is_required and check.name not in good]


def _kept(report: Report) -> dict[str, Any]:
    """What a connection keeps of a report."""
    installation = next((one for one in report.findings if one.name == INSTALLATION.name), None)
    return {
        "at": report.made_at.isoformat(),
        "configuration": report.configuration,
        "portal": report.portal,
        "cloud": report.cloud,
        "has_installed": installation is not None and installation.verdict is Verdict.PASSED,
    } | {verdict.value: report.count(verdict) for verdict in Verdict}


# --- what the portal looks at ----------------------------------------------------------------------------------------


def look_at_rows(*, connection: Connection) -> tuple[Finding, Finding]:
    """Whether the machines that are listed can be rows of the portal, and how many of them are (`ROWS`, `KNOWN`)."""
    problems: dict[str, int] = {}
    arm_ids: list[str] = []
    cursor, count = "", 0
    try:
        while count < MOST_MACHINES:
            page = discovered_page(connection=connection, cursor=cursor, first=count + 1)
            count += len(page.rows)
            for row in page.rows:
                if isinstance(row.content, BadRow):
                    problems[row.content.problem] = problems.get(row.content.problem, 0) + 1
                else:
                    arm_ids.append(row.arm_id)
            cursor = page.next_cursor
            if not cursor:
                break
    except DiscoveryError as error:
        reason = f"{error.code} {error.detail}".strip()
        return failed(ROWS.name, reason), skipped(KNOWN.name, "the machines are not listed")
    told = ", ".join(f"{number} {problem}" for problem, number in sorted(problems.items()))
    evidence = f"{count} machines: {len(arm_ids)} rows" + (f"; left out: {told}" if told else "")
    if wrong := sorted(set(problems) - _LEFT_ALONE):
        return failed(ROWS.name, f"cannot be read: {', '.join(wrong)}", evidence), _known(connection, arm_ids)
    if not arm_ids:
        return skipped(ROWS.name, f"no Windows machine is listed ({evidence})"), _known(connection, arm_ids)
    return passed(ROWS.name, evidence), _known(connection, arm_ids)


def _known(connection: Connection, arm_ids: Sequence[str]) -> Finding:
    known = VirtualMachine.objects.filter(connection=connection, arm_id__in=arm_ids, gone_at=None).count()
    evidence = f"{known} of {len(arm_ids)}"
    if not known:
        return skipped(KNOWN.name, "the connection was not synced yet" if arm_ids else "no machine is listed")
    return passed(KNOWN.name, evidence)
