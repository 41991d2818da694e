"""Codes in words: what is known is said, what is not known is not made up, and only what has a button is advised."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation

from connectors.probe import ProbeFailure
from connectors.protocol import ConnectorError, PatchOutcome
from patching.codes import MOST_CHARACTERS, ErrorCode, EventCode, Fault, RolloutReason
from patching.terms import Classification, InstallationState, OperationKind, Patch, RebootBehavior
from tests.factories import OperationFactory, PatchFactory, VirtualMachineFactory
from updates.models import Operation, PatchResult
from updates.texts import (
    ERRORS,
    EVENTS,
    FAULTS,
    HRESULTS,
    PROBE_FAILURES,
    ROLLOUT_REASONS,
    RUNNING,
    error_text,
    fault_text,
)
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]
AN_UPDATE = Patch("5034129", "An update", Classification.SECURITY, RebootBehavior.NEVER_REBOOTS)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group)


def a_failed_run(vm: VirtualMachine, code: str) -> Operation:
    run: Operation = OperationFactory(
        vm=vm, installation=True, succeeded=True, state="failed", error_code="patch.failed"
    )
    PatchResult.objects.create(
        operation=run, patch=PatchFactory(), state="Failed", reason="class_selected", error_code=code
    )
    return run


@pytest.mark.parametrize("code", ["0x80070643", "0X8024402C", "0x800F0922"])
def test_a_code_of_windows_has_its_words_whatever_its_case(code: str) -> None:
    assert error_text(code) is HRESULTS[code.lower()]


@pytest.mark.parametrize("code", ["0xdeadbeef", "0x00000000", "0x8000FFFF"])
def test_a_code_of_windows_without_words_says_so_and_advises_nothing(code: str) -> None:
    words = error_text(code)
    assert (str(words.title), str(words.advice), str(words.retry)) == (f"No meaning is recorded for {code}.", "", "")


@pytest.mark.parametrize("code", ["0x123", "0x800706431", "x", "connector.new", "80070643", "0xZZZZZZZZ"])
def test_any_other_code_is_named_as_unknown(code: str) -> None:
    words = error_text(code)
    assert str(words.title) == f"Unknown error “{code}”."
    assert words.advice == ERRORS[ErrorCode.UNKNOWN].advice
    assert ErrorCode.of(code) is ErrorCode.UNKNOWN
    assert fault_text(code) == ""


def test_no_code_is_an_error_without_a_story() -> None:
    assert error_text("") is error_text("error.unknown") is ERRORS[ErrorCode.UNKNOWN]


def test_codes_are_written_in_one_way_and_advice_to_run_again_stands_apart() -> None:
    assert all(re.fullmatch(r"0x[0-9a-f]{8}", code) for code in HRESULTS)
    for code, words in {**ERRORS, **HRESULTS}.items():
        assert not re.search(r"(?i)\b(run|try)\b[^.]*\bagain\b", f"{words.title} {words.advice}"), code


# --- the codes ---------------------------------------------------------------------------------------------------

CODES = {member.value for enum in (ErrorCode, RolloutReason, EventCode, ProbeFailure) for member in enum}
PRODUCT = ("patching", "connectors", "ui", "vms", "updates", "hotpatch_portal")
# Text of the same form that is no code: files, and names of loggers that we do not write.
SUFFIXES = (".csv", ".html", ".json", ".log", ".pem", ".pid", ".py", ".sock", ".toml", ".txt")


def is_a_name(text: str) -> bool:
    """Whether the text names a file, a module or a model, and so no code."""
    head, _dot, tail = text.partition(".")
    if text.endswith(SUFFIXES) or find_spec(head) is not None:
        return True
    return head in apps.app_configs and tail in apps.all_models[head]


def codes_in(tree: ast.Module) -> list[tuple[int, str]]:
    """Every text of a file that can only be a code: alone in its quotes, or between quotes in SQL."""
    first_words = {
        call.args[0]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"debug", "info", "warning", "error", "exception"}
        and call.args
    }  # the event of a log line, which nobody stores or words
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in first_words:
            alone = re.findall(r"\A[a-z][a-z_]*\.[a-z][a-z_]*\Z", node.value)
            in_sql = re.findall(r"(?<!setting\()(?<!config\()'([a-z][a-z_]*\.[a-z][a-z_]*)'", node.value)
            found += [(node.lineno, text) for text in (*alone, *in_sql) if not is_a_name(text)]
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_code_that_is_written_is_a_member() -> None:
    families = {code.partition(".")[0] for code in CODES}
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in files(*PRODUCT)
        for line, text in codes_in(ast.parse(path.read_text()))
        if text not in CODES
    ]
    unknown += [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in files("bench", "tests")
        for line, text in codes_in(ast.parse(path.read_text()))
        if text.partition(".")[0] in families - {"vm", "request"} and text not in CODES | MADE_UP
    ]
    assert unknown == []


# Codes that tests let a connector make up.
MADE_UP = {"connector.new", "connector.lost", "connector.forbidden", "health.odd"}


def test_the_product_names_codes_by_their_members() -> None:
    written = {
        str(path.relative_to(ROOT))
        for path in files(*PRODUCT)
        if "migrations" not in path.parts
        and path.relative_to(ROOT) not in (Path("patching/codes.py"), Path("connectors/probe.py"))
        and codes_in(ast.parse(path.read_text()))
    }
    assert written == set()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('fail("connector.lost")', ["connector.lost"]),
        ('if code == "brand.new": pass', ["brand.new"]),
        ("cursor.execute(\"UPDATE t SET code = 'health.odd'\")", ["health.odd"]),
        ('log.info("request.refused", code="vm.gone")', ["vm.gone"]),
        ('render("tour.html"); load("hotpatch_portal.settings"); get_model("auth.user")', []),
        ('"""A sentence about vm.gone."""', []),
    ],
)
def test_the_search_for_codes_finds_them(line: str, found: list[str]) -> None:
    assert [text for _line, text in codes_in(ast.parse(line))] == found


def test_every_code_has_its_words_in_both_languages() -> None:
    assert set(ERRORS) == set(ErrorCode)
    assert set(ROLLOUT_REASONS) == {*RolloutReason, ErrorCode.VM_NOT_RUNNING}
    assert set(EVENTS) == set(EventCode)
    assert set(FAULTS) == set(Fault)
    assert set(PROBE_FAILURES) == set(ProbeFailure)
    texts = {code: (str(words.title), str(words.advice or words.retry)) for code, words in ERRORS.items()}
    assert [code for code, (title, advice) in texts.items() if not title or not advice] == []
    sentences = [*ROLLOUT_REASONS.values(), *EVENTS.values(), *FAULTS.values(), *PROBE_FAILURES.values()]
    english = [*texts.values(), *((str(text),) for text in sentences)]
    with translation.override("ja"):
        japanese = [(str(words.title), str(words.advice or words.retry)) for words in ERRORS.values()]
        japanese += [(str(text),) for text in sentences]
    assert [ours for ours, theirs in zip(english, japanese, strict=True) if set(ours) & set(theirs)] == []


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("connector.unreachable", "connector.unreachable"),
        ("OperationNotAllowed", "OperationNotAllowed"),
        ("bad\x00code\n", "badcode"),
        ("x" * 500, "x" * MOST_CHARACTERS),
        ("", "error.unknown"),
        (" \x00\t ", "error.unknown"),
    ],
)
def test_a_code_that_a_connector_makes_up_can_be_kept_and_shown(raw: str, kept: str) -> None:
    assert ConnectorError(raw).code == kept
    assert PatchOutcome(patch=AN_UPDATE, state=InstallationState.FAILED, error_code=raw).error_code == (
        kept if raw else ""
    )


def test_a_run_with_an_unknown_code_shows_it(client: Client, reader: User, vm: VirtualMachine) -> None:
    run = a_failed_run(vm, "0x80070643")
    Operation.objects.filter(pk=run.pk).update(error_code="<b>odd</b>")
    client.force_login(reader)
    for address in (
        reverse("updates:operation", args=[run.pk]),
        f"{reverse('updates:blade', args=[vm.pk])}?tab=history",
    ):
        shown = client.get(address).content.decode()
        assert "Unknown error “&lt;b&gt;odd&lt;/b&gt;”." in shown
        assert "Cause:" not in shown
    Operation.objects.filter(pk=run.pk).update(error_code="connector.timeout")
    shown = client.get(reverse("updates:operation", args=[run.pk])).content.decode()
    assert "Cause: the machine&#x27;s platform." in shown


def test_the_row_of_a_failed_update_says_what_the_code_means_not_why_it_was_selected(
    client: Client, reader: User, vm: VirtualMachine
) -> None:
    client.force_login(reader)
    for code, words in (
        ("0x80070643", "The installation of the update failed."),
        ("0x8abcdef0", "No meaning is recorded"),
    ):
        shown = client.get(reverse("updates:operation", args=[a_failed_run(vm, code).pk])).content.decode()
        row = text_of(shown.split('aria-labelledby="results-title"')[1].split("</table>")[0])
        assert words in row
        assert code in row
        assert "class is selected" not in row


def test_to_run_it_again_is_advised_where_the_button_is(
    client: Client, reader: User, operator: User, vm: VirtualMachine
) -> None:
    run = a_failed_run(vm, "0x80070643")
    for user, is_shown in ((reader, False), (operator, True)):
        client.force_login(user)
        shown = client.get(reverse("updates:operation", args=[run.pk])).content.decode()
        assert ("Run the installation again" in shown) is is_shown
        assert (f"{reverse('updates:install', args=[vm.pk])}?again={run.pk}" in shown) is is_shown


@pytest.mark.parametrize("is_exceeded", [True, False])
def test_that_the_time_was_too_short_is_told_only_if_it_was(
    client: Client, reader: User, vm: VirtualMachine, is_exceeded: bool
) -> None:
    run = a_failed_run(vm, "0x80070643")
    Operation.objects.filter(pk=run.pk).update(is_maintenance_window_exceeded=is_exceeded)
    client.force_login(reader)
    shown = client.get(reverse("updates:operation", args=[run.pk])).content.decode()
    assert ("Maximum duration exceeded" in shown) is is_exceeded
    assert "Maintenance window exceeded" not in shown


@pytest.mark.parametrize("kind", OperationKind)
def test_an_open_operation_is_called_by_its_kind(
    client: Client, reader: User, vm: VirtualMachine, kind: OperationKind
) -> None:
    run = OperationFactory(vm=vm, kind=kind.value)
    assert (kind.value, "") in RUNNING, "the title of its tab"
    client.force_login(reader)
    page = client.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    bar = text_of(page.split('class="running-head"')[1].split("</div>")[0])
    assert run.get_kind_display().lower() in bar.lower()


def test_a_reboot_is_said_once(client: Client, reader: User, vm: VirtualMachine) -> None:
    run = OperationFactory(
        vm=vm, installation=True, in_progress=True, state="rebooting", progress={"step": "rebooting", "fraction": 0.9}
    )
    client.force_login(reader)
    page = client.get(reverse("updates:operation", args=[run.pk])).content.decode()
    card = page.split('class="card running"')[1].split(">", 1)[1].split("<dl")[0]
    assert text_of(card).count("Rebooting") == 1
    blade = text_of(client.get(reverse("updates:blade", args=[vm.pk])).content.decode())
    assert "the machine is rebooting – Rebooting" not in blade
    assert "Installation: the machine is rebooting" in blade
