"""What every connector promises, run against each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest

from connectors.protocol import Capability, Connector, ConnectorError, Observation, Started
from connectors.simulator import MemoryLedger, SimulatorConfiguration, make
from patching.terms import PatchSettings
from tests.connectors.catalogue import recorded
from tests.connectors.machines import NOW, SECURITY, machine, observe_request, simulate, start_request


def _simulator() -> Connector:
    conf = SimulatorConfiguration(catalogue_date=date(2026, 5, 20))
    return make(conf, recorded(), ledger=MemoryLedger())


@pytest.fixture(params=[_simulator], ids=["simulator"])
def connector(request: pytest.FixtureRequest) -> Connector:
    factory: Callable[[], Connector] = request.param
    return factory()


GOOD = machine("good")
BAD = replace(machine("bad"), power_state="deallocated")


def test_one_answer_per_item_in_order_and_a_bad_item_spoils_no_other(connector: Connector) -> None:
    requests = [start_request(vm, number=n) for n, vm in enumerate((GOOD, BAD, GOOD, BAD, GOOD), start=1)]
    answers = connector.start(requests, now=NOW)
    assert [isinstance(answer, Started) for answer in answers] == [True, False, True, False, True]
    looks = [observe_request(vm, number=n) for n, vm in enumerate((GOOD, machine(line=None), GOOD), start=1)]
    seen = connector.observe(looks, now=NOW)
    assert [isinstance(answer, Observation) for answer in seen] == [True, False, True]


def test_nothing_in_nothing_out(connector: Connector) -> None:
    assert list(connector.start([], now=NOW)) == []
    assert list(connector.observe([], now=NOW)) == []
    assert list(connector.find([], now=NOW)) == []
    assert list(connector.apply_patch_settings([])) == []


def test_the_same_request_starts_nothing_new(connector: Connector) -> None:
    if Capability.IDEMPOTENT_START not in connector.capabilities:
        pytest.skip("not promised")
    request = start_request(GOOD, SECURITY)
    first = connector.start([request], now=NOW)
    second = connector.start([request], now=NOW + timedelta(seconds=5))
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
    connector.start([never_sent, lost], now=NOW)
    found = connector.find([never_sent, lost], now=NOW)
    assert found[0] is None
    assert isinstance(found[1], Started)


def test_settings_come_back(connector: Connector) -> None:
    wanted = PatchSettings(enable_hotpatching=True)
    (answer,) = connector.apply_patch_settings([(GOOD, wanted)])
    assert answer == wanted or isinstance(answer, ConnectorError)
