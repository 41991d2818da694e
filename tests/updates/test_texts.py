"""Codes in words: what is known is said, what is not known is not made up, and only what has a button is advised."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import OperationFactory, PatchFactory, VirtualMachineFactory
from updates.models import Operation, PatchResult
from updates.texts import ERRORS, HRESULTS, UNKNOWN_ERROR, error_text
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group)


def a_failed_run(vm: VirtualMachine, code: str) -> Operation:
    run: Operation = OperationFactory(
        vm=vm, installation=True, succeeded=True, state="failed", error_code="patch.failed", plan=None
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


@pytest.mark.parametrize("code", ["", "0x123", "0x800706431", "x", "connector.new", "80070643", "0xZZZZZZZZ"])
def test_any_other_code_is_an_error_without_a_story(code: str) -> None:
    assert error_text(code) is UNKNOWN_ERROR


def test_codes_are_written_in_one_way_and_advice_to_run_again_stands_apart() -> None:
    assert all(re.fullmatch(r"0x[0-9a-f]{8}", code) for code in HRESULTS)
    for code, words in {**ERRORS, **HRESULTS, "": UNKNOWN_ERROR}.items():
        assert not re.search(r"(?i)\b(run|try)\b[^.]*\bagain\b", f"{words.title} {words.advice}"), code


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
