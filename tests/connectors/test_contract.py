"""What every connector promises: each rule one test, run against each connector that is to keep it.

A new connector is one line in WORKING.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import pytest

from connectors.protocol import (
    LONGEST_PAUSE,
    BucketNews,
    Capability,
    Connector,
    ConnectorError,
    DiscoveredPage,
    Observation,
    Place,
    Started,
    StartRequest,
)
from connectors.registry import Trouble, TroubleCode, UnusableConnector
from connectors.secrets import variable_of
from connectors.simulator import MemoryLedger, SimulatorConfiguration, make
from patching.terms import OperationKind, PatchSettings, RebootSetting, RebootStatus, RunStatus
from tests.connectors.azure.desk import SECRET, desk
from tests.connectors.catalogue import recorded
from tests.connectors.machines import NOW, SECURITY, machine, observe_request, simulate, start, start_request
from tests.connectors.scripted import (
    Losing,
    Piecemeal,
    Scripted,
    Throttled,
    partial,
    slow,
    throttled_by_bucket,
    unable,
)


def _simulator() -> Connector:
    conf = SimulatorConfiguration(catalogue_date=date(2026, 5, 20))
    return make(conf, recorded(), ledger=MemoryLedger())


# Those that carry out what they are told, and those that refuse or lose it: the contract is the same.
WORKING: dict[str, Callable[[], Connector]] = {
    "simulator": _simulator,
    "scripted": Scripted,
    "slow": slow,
    "partial": partial,
    "unable": unable,
    "piecemeal": Piecemeal,
    "azure": desk,
}
REFUSING: dict[str, Callable[[], Connector]] = {
    "throttled": Throttled,
    "throttled for a time": lambda: Throttled(retry_after=30.0),
    "throttled by bucket": throttled_by_bucket,
    "losing": Losing,
    "unusable": lambda: UnusableConnector(Trouble(TroubleCode.UNKNOWN_KIND, "none")),
}
CONNECTORS = WORKING | REFUSING


@pytest.fixture(autouse=True)
def signing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connectors that sign in need."""
    monkeypatch.setenv(variable_of(SECRET), "hush")


@pytest.fixture(params=WORKING.values(), ids=WORKING)
def connector(request: pytest.FixtureRequest) -> Connector:
    factory: Callable[[], Connector] = request.param
    return factory()


@pytest.fixture(params=CONNECTORS.values(), ids=CONNECTORS)
def any_connector(request: pytest.FixtureRequest) -> Connector:
    factory: Callable[[], Connector] = request.param
    return factory()


GOOD = machine("good")
BAD = replace(machine("bad"), power_state="deallocated")


def test_one_answer_per_item_in_order_and_a_bad_item_spoils_no_other(connector: Connector) -> None:
    requests = [start_request(vm, number=n) for n, vm in enumerate((GOOD, BAD, GOOD, BAD, GOOD), start=1)]
    answers = start(connector, requests, now=NOW)
    assert [isinstance(answer, Started) for answer in answers] == [True, False, True, False, True]
    looks = [observe_request(vm, number=n) for n, vm in enumerate((GOOD, machine(line=None), GOOD), start=1)]
    seen = connector.observe(looks, now=NOW)
    assert [isinstance(answer, Observation) for answer in seen] == [True, False, True]


def test_nothing_in_nothing_out(any_connector: Connector) -> None:
    assert list(start(any_connector, [], now=NOW)) == []
    assert list(any_connector.observe([], now=NOW)) == []
    assert list(any_connector.find([], now=NOW)) == []


class Drawn(Iterator[StartRequest]):
    """The requests as the engine hands them out: none once the time is over. Remembers what was drawn, and when."""

    def __init__(self, count: int, until: float) -> None:
        self.left = [start_request(machine(f"vm-{n}"), number=n) for n in range(1, count + 1)]
        self.until = until
        self.ids: list[UUID] = []

    def __next__(self) -> StartRequest:
        if not self.left or time.monotonic() >= self.until:
            raise StopIteration
        request = self.left.pop(0)
        self.ids.append(request.request_id)
        return request


def test_what_is_drawn_is_answered_once_and_nothing_else_is(any_connector: Connector) -> None:
    until = time.monotonic() + 60
    drawn = Drawn(20, until)
    answered = [pk for chunk in any_connector.start(drawn, now=NOW, until=until) for pk, _outcome in chunk]
    assert not drawn.left
    assert sorted(answered) == sorted(drawn.ids)


def test_nothing_is_drawn_while_a_chunk_is_recorded(any_connector: Connector) -> None:
    until = time.monotonic() + 60
    drawn = Drawn(8, until)
    for _chunk in any_connector.start(drawn, now=NOW, until=until):
        before = len(drawn.ids)
        time.sleep(0.01)  # the engine writes it down
        assert len(drawn.ids) == before


def test_it_ends_in_time_and_what_it_did_not_draw_was_not_sent(any_connector: Connector) -> None:
    seconds = 0.2
    until = time.monotonic() + seconds
    drawn = Drawn(1_000, until)
    began = time.monotonic()
    answered = [pk for chunk in any_connector.start(drawn, now=NOW, until=until) for pk, _outcome in chunk]
    assert time.monotonic() - began <= seconds + any_connector.traits.call_seconds
    assert sorted(answered) == sorted(drawn.ids)
    reached = getattr(any_connector, "received", {})
    assert set(reached) <= set(drawn.ids)


def test_a_refused_start_says_so_in_words_that_can_be_kept(any_connector: Connector) -> None:
    for vm in (GOOD, BAD, machine(line=None)):
        (answer,) = start(any_connector, [start_request(vm)], now=NOW)
        if isinstance(answer, ConnectorError):
            assert answer.code
            assert answer.retry_after is None or 0 <= answer.retry_after <= LONGEST_PAUSE
            assert "\x00" not in answer.detail
            assert not (answer.bucket is not None and not answer.nothing_was_sent), "a budget refuses before it sends"


def test_what_proves_that_nothing_was_sent_is_true(any_connector: Connector) -> None:
    reached = getattr(any_connector, "received", None)
    if reached is None:
        pytest.skip("its machines write nothing down")
    for number, vm in enumerate((GOOD, BAD, machine(line=None)), start=1):
        request = start_request(vm, number=number)
        (answer,) = start(any_connector, [request], now=NOW)
        if isinstance(answer, ConnectorError) and answer.nothing_was_sent:
            assert not reached[request.request_id]
        if isinstance(answer, Started):
            assert reached[request.request_id] == 1


def test_a_bucket_that_refuses_is_the_one_that_its_kind_names(any_connector: Connector) -> None:
    vm = machine("near", location="japaneast", subscription="1111")
    (answer,) = start(any_connector, [start_request(vm)], now=NOW)
    if not isinstance(answer, ConnectorError) or not answer.bucket:
        pytest.skip("no bucket of a kind refused")
    buckets = any_connector.traits.buckets
    assert buckets is not None
    assert answer.bucket == buckets.name_of(Place(vm.subscription, vm.location))


def test_looks_are_answered_one_by_one_in_order(any_connector: Connector) -> None:
    looks = [observe_request(vm, number=n) for n, vm in enumerate((GOOD, machine(line=None), GOOD), start=1)]
    answers = any_connector.observe(looks, now=NOW)
    assert len(answers) == len(looks)
    assert all(isinstance(answer, Observation | ConnectorError) for answer in answers)


def test_where_requests_cannot_be_found_nobody_is_told_that_one_never_arrived(any_connector: Connector) -> None:
    if Capability.FIND_BY_REQUEST in any_connector.capabilities:
        pytest.skip("promised")
    assert all(isinstance(answer, ConnectorError) for answer in any_connector.find([start_request(GOOD)], now=NOW))


def test_the_inventory_may_be_asked_again_from_the_same_place(any_connector: Connector) -> None:
    first = any_connector.discover()
    assert isinstance(first, DiscoveredPage | ConnectorError)
    assert first == any_connector.discover()


def test_only_what_is_complete_is_called_so(connector: Connector) -> None:
    """With INSTALLED_UPDATES an assessment tells everything that is installed; None is only for those that do not."""
    (seen,) = connector.observe([observe_request(GOOD)], now=NOW + timedelta(hours=1))
    assert isinstance(seen, Observation)
    assert seen.assessment is not None
    if Capability.INSTALLED_UPDATES in connector.capabilities:
        assert seen.assessment.installed is not None
    assert seen.assessment.has_found


def test_an_assessment_was_made_before_it_is_told(connector: Connector) -> None:
    moment = NOW + timedelta(hours=1)
    (seen,) = connector.observe([observe_request(GOOD)], now=moment)
    assert isinstance(seen, Observation)
    assert seen.assessment is not None
    made = seen.assessment.assessed_at
    assert made is None or made <= moment


NONSENSE = [float("nan"), -1.0, "soon", True, None]


@pytest.mark.parametrize("told", NONSENSE, ids=repr)
def test_a_pause_that_nobody_can_read_is_none(told: object) -> None:
    assert ConnectorError("connector.throttled", retry_after=told).retry_after is None  # type: ignore[arg-type]
    assert BucketNews("a", is_dry=True, retry_after=told).retry_after is None  # type: ignore[arg-type]


@pytest.mark.parametrize("told", [float("inf"), 1e12])
def test_no_pause_lasts_longer_than_a_day(told: float) -> None:
    assert ConnectorError("connector.throttled", retry_after=told).retry_after == LONGEST_PAUSE
    assert BucketNews("a", remaining=-3, is_dry=True, retry_after=told) == BucketNews("a", 0, True, LONGEST_PAUSE)


def test_the_same_request_starts_nothing_new(connector: Connector) -> None:
    if Capability.IDEMPOTENT_START not in connector.capabilities:
        pytest.skip("not promised")
    request = start_request(GOOD, SECURITY)
    first = start(connector, [request], now=NOW)
    second = start(connector, [request], now=NOW + timedelta(seconds=5))
    assert first == second
    look = [observe_request(GOOD, SECURITY)]
    assert connector.observe(look, now=NOW) == connector.observe(look, now=NOW)


@pytest.mark.parametrize("plan", [None, SECURITY], ids=["assessment", "installation"])
def test_an_operation_ends_once_and_stays_ended(connector: Connector, plan: object) -> None:
    request = observe_request(GOOD, plan)  # type: ignore[arg-type]
    finals = []
    for minutes in range(0, 60, 2):
        (seen,) = connector.observe([request], now=NOW + timedelta(minutes=minutes))
        assert isinstance(seen, Observation)
        if seen.is_final:
            assert (seen.assessment is None) is (plan is not None)
            finals.append(seen)
        else:
            assert not finals
            assert seen.progress is not None
            assert seen.look_again_after >= 0
    assert finals
    assert all(final == finals[0] for final in finals)


@pytest.mark.parametrize("plan", [None, SECURITY], ids=["assessment", "installation"])
def test_progress_never_goes_back(connector: Connector, plan: object) -> None:
    request = observe_request(GOOD, plan)  # type: ignore[arg-type]
    fractions = []
    for second in range(60):
        (seen,) = connector.observe([request], now=NOW + timedelta(seconds=second))
        assert isinstance(seen, Observation)
        if seen.progress is not None:
            fractions.append(seen.progress.fraction)
            assert 0 <= seen.progress.index <= max(seen.progress.total, 0)
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_a_final_assessment_comes_where_it_is_promised(connector: Connector) -> None:
    (seen,) = connector.observe([observe_request(GOOD, SECURITY)], now=NOW + timedelta(hours=12))
    assert isinstance(seen, Observation)
    assert seen.installation is not None
    promised = Capability.FINAL_ASSESSMENT in connector.capabilities
    assert (seen.installation.final_assessment is not None) is promised
    keys = [outcome.patch.key for outcome in seen.installation.patches]
    assert len(keys) == len(set(keys))


def test_a_lost_start_can_be_found(connector: Connector) -> None:
    if Capability.FIND_BY_REQUEST not in connector.capabilities:
        pytest.skip("not promised")
    never_sent = start_request(BAD)
    lost = start_request(machine("lost", tags=simulate("lost-answer")), number=2)
    start(connector, [never_sent, lost], now=NOW)
    found = connector.find([never_sent, lost], now=NOW)
    assert found[0] is None
    assert isinstance(found[1], Started)


WAITING = replace(machine("waiting"), is_reboot_pending=True)


def test_a_machine_is_restarted_and_says_how_it_came_back(connector: Connector) -> None:
    told = replace(start_request(WAITING), kind=OperationKind.RESTART)
    (started,) = start(connector, [told], now=NOW)
    if Capability.RESTART not in connector.capabilities:
        assert isinstance(started, ConnectorError)
        assert started.nothing_was_sent
        return
    assert isinstance(started, Started)
    asked = replace(observe_request(WAITING), kind=OperationKind.RESTART)
    finals = []
    fractions = []
    for minutes in range(0, 60, 2):
        (seen,) = connector.observe([asked], now=NOW + timedelta(minutes=minutes / 10))
        assert isinstance(seen, Observation)
        if seen.is_final:
            finals.append(seen)
            continue
        assert not finals
        assert seen.progress is not None
        fractions.append(seen.progress.fraction)
    assert fractions == sorted(fractions)
    assert finals
    assert all(final == finals[0] for final in finals)
    ended = finals[0].restart
    assert ended is not None
    assert (ended.status, ended.reboot_status) == (RunStatus.SUCCEEDED, RebootStatus.COMPLETED)
    promised = Capability.FINAL_ASSESSMENT in connector.capabilities
    assert (ended.final_assessment is not None) is promised
    if ended.final_assessment is not None:
        assert not ended.final_assessment.is_reboot_pending


def test_the_same_restart_twice_is_one(connector: Connector) -> None:
    if not {Capability.RESTART, Capability.IDEMPOTENT_START} <= connector.capabilities:
        pytest.skip("not promised")
    told = replace(start_request(WAITING), kind=OperationKind.RESTART)
    first = start(connector, [told], now=NOW)
    assert start(connector, [told], now=NOW + timedelta(seconds=5)) == first
    reached = getattr(connector, "received", None)
    if reached is not None:
        assert set(reached) == {told.request_id}


def test_settings_are_carried_and_reported(connector: Connector) -> None:
    if Capability.SETTINGS not in connector.capabilities:
        pytest.skip("not promised")
    wanted = PatchSettings(enable_hotpatching=True, reboot_setting=RebootSetting.NEVER)
    told = replace(start_request(GOOD), kind=OperationKind.SETTINGS, settings=wanted)
    (started,) = start(connector, [told], now=NOW)
    assert isinstance(started, Started)
    asked = replace(observe_request(GOOD), kind=OperationKind.SETTINGS, settings=wanted)
    (early,) = connector.observe([asked], now=NOW)
    assert isinstance(early, Observation)
    assert not early.is_final
    (late,) = connector.observe([asked], now=NOW + timedelta(hours=1))
    assert isinstance(late, Observation)
    assert (late.settings, late.assessment, late.installation) == (wanted, None, None)
    (again,) = connector.observe([asked], now=NOW + timedelta(hours=2))
    assert again == late


def test_an_assessment_reports_the_settings_of_the_machine(connector: Connector) -> None:
    (seen,) = connector.observe([observe_request(GOOD)], now=NOW + timedelta(hours=1))
    assert isinstance(seen, Observation)
    assert seen.assessment is not None
    assert seen.assessment.settings in {None, GOOD.settings}
