"""Kinds of connectors: what they are made from, what is wrong with a configuration, and secrets by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.configuration import Bounds, ConfigurationError, FieldType, Wrong, fields_of, read, to_json
from connectors.protocol import ConnectorError, Orchestrator, Traits
from connectors.registry import (
    AZURE,
    KINDS,
    SIMULATOR,
    UNUSABLE,
    Grade,
    Kind,
    TroubleCode,
    UnusableError,
    catalogue_date_of,
    configuration_digest,
    connector_for,
    endpoint_of,
    guide_of,
    kit_of,
    make_connector,
    traits_of,
    trouble_of,
)
from connectors.secrets import SecretMissingError, SecretName, is_secret_name, read_secret
from connectors.simulator import SimulatorConfiguration
from tests.connectors.catalogue import recorded
from tests.connectors.machines import NOW, machine, observe_request, start, start_request


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Everything:
    """A field of every type."""

    host: Annotated[str, Bounds(least=2, most=5)]
    key: SecretName
    count: Annotated[int, Bounds(1, 9)] = 1
    factor: float = 1.0
    is_on: bool = False
    since: Annotated[date | None, Bounds(date(2000, 1, 1), date(2100, 12, 31))] = None
    colour: Colour = Colour.RED
    note: str | None = None


GOOD = {"host": "abc", "key": "my_key"}


def wrong_with(change: dict[str, Any], configuration: type = Everything) -> list[tuple[str, Wrong]]:
    with pytest.raises(ConfigurationError) as caught:
        read(configuration, GOOD | change if configuration is Everything else change)
    return [(problem.field, problem.wrong) for problem in caught.value.problems]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_whole(kind: Kind) -> None:
    """Its defaults can be kept and read again; its connector can do what the registry says, no more and no less."""
    specs = fields_of(kind.configuration)
    if any(spec.is_required for spec in specs):
        pytest.skip("has no defaults to be made from")
    conf = kind.configuration()
    assert read(kind.configuration, to_json(conf)) == conf
    connector = make_connector(kind.name, to_json(conf), catalogue=recorded())
    assert connector.capabilities == kind.capabilities
    assert connector.traits == kind.traits


def test_grades_are_earned() -> None:
    simulator = KINDS[SIMULATOR]
    assert simulator.grade is Grade.SIMULATED
    real = replace(simulator, traits=replace(simulator.traits, is_simulated=False))
    assert real.grade is Grade.PROTOCOL_PROVEN
    assert Grade.QUALIFIED not in {kind.grade for kind in KINDS.values()}, "a connection earns it, not its kind"


def test_a_configuration_is_known_however_it_is_written_down() -> None:
    known = configuration_digest(AZURE, {"tenant_id": "contoso.example"})
    assert configuration_digest(AZURE, {"tenant_id": "contoso.example", "client_id": "", "secret": None}) == known
    assert configuration_digest(AZURE, {"tenant_id": "contoso.test"}) != known
    assert configuration_digest(AZURE, {"tenant_id": 7}) == configuration_digest("carrier-pigeon", {}) == ""
    assert endpoint_of(SIMULATOR, {}) == endpoint_of("carrier-pigeon", {}) == endpoint_of(AZURE, ["odd"]) == ("", "")
    assert kit_of(SIMULATOR) is None
    assert guide_of(SIMULATOR, {}) is guide_of(AZURE, {"endpoint": "http://no"}) is None


def test_a_configuration_of_every_type_is_read() -> None:
    told = GOOD | {"count": 3.0, "factor": 2, "is_on": True, "since": "2026-05-20", "colour": "blue", "note": None}
    conf = read(Everything, told)
    assert conf == Everything("abc", SecretName("my_key"), 3, 2.0, True, date(2026, 5, 20), Colour.BLUE, None)
    assert isinstance(conf.key, SecretName)
    assert read(Everything, to_json(conf)) == conf
    assert {spec.name: spec.holds for spec in fields_of(Everything)}["colour"] is FieldType.CHOICE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"host": ""}, [("host", Wrong.NOT_READABLE)]),
        ({"host": "a"}, [("host", Wrong.TOO_SMALL)]),
        ({"host": "abcdef"}, [("host", Wrong.TOO_LARGE)]),
        ({"host": "a\x00b"}, [("host", Wrong.NOT_READABLE)]),
        ({"host": None}, [("host", Wrong.NOT_READABLE)]),
        ({"key": "s3cret value!"}, [("key", Wrong.NO_SECRET_NAME)]),
        ({"key": "other_file"}, [("key", Wrong.NO_SECRET_NAME)]),
        ({"count": True}, [("count", Wrong.NOT_READABLE)]),
        ({"count": 1.5}, [("count", Wrong.NOT_READABLE)]),
        ({"count": "1"}, [("count", Wrong.NOT_READABLE)]),
        ({"count": 0}, [("count", Wrong.TOO_SMALL)]),
        ({"count": 10}, [("count", Wrong.TOO_LARGE)]),
        ({"factor": float("nan")}, [("factor", Wrong.NOT_READABLE)]),
        ({"factor": float("inf")}, [("factor", Wrong.NOT_READABLE)]),
        ({"factor": 10**400}, [("factor", Wrong.NOT_READABLE)]),
        ({"is_on": 1}, [("is_on", Wrong.NOT_READABLE)]),
        ({"since": "2026-02-30"}, [("since", Wrong.NOT_READABLE)]),
        ({"since": "9999-12-31"}, [("since", Wrong.TOO_LARGE)]),
        ({"since": [1]}, [("since", Wrong.NOT_READABLE)]),
        ({"colour": "green"}, [("colour", Wrong.NO_CHOICE)]),
        ({"colour": None}, [("colour", Wrong.NOT_READABLE)]),
        ({"shape": "round"}, [("shape", Wrong.UNKNOWN)]),
        ({"count": 0, "is_on": "yes"}, [("count", Wrong.TOO_SMALL), ("is_on", Wrong.NOT_READABLE)]),
    ],
)
def test_what_is_wrong_is_named_field_by_field(change: dict[str, Any], expected: list[tuple[str, Wrong]]) -> None:
    assert wrong_with(change) == expected


def test_what_is_missing_and_what_is_no_object() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(Everything, {})
    assert [(p.field, p.wrong) for p in caught.value.problems] == [("host", Wrong.MISSING), ("key", Wrong.MISSING)]
    for stored in (None, [], "x", 3):
        with pytest.raises(ConfigurationError, match="no JSON object"):
            read(SimulatorConfiguration, stored)


def test_a_message_repeats_a_wrong_value_but_never_a_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(Everything, GOOD | {"key": "hunter2 hunter2", "colour": "x" * 500})
    words = str(caught.value)
    assert "hunter2" not in words
    assert "x" * 60 in words
    assert "x" * 61 not in words


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["catalogue_date", "clock_factor", "seed", "other"]), json_values) | json_values)
def test_no_configuration_crashes_anything(stored: Any) -> None:
    trouble = trouble_of(SIMULATOR, stored)
    day = catalogue_date_of(stored)
    assert day is None or day.year >= 2000
    connector = connector_for(SIMULATOR, stored, catalogue=recorded())
    (answer,) = start(connector, [start_request(machine())], now=NOW)
    assert isinstance(answer, ConnectorError) is (trouble is not None)
    assert not trouble or str(trouble)


# --- connections that cannot be used ----------------------------------------------------------------------------------


def test_an_unusable_connection_sends_nothing_and_tells_each_request_why() -> None:
    connector = connector_for("telepathy", {}, catalogue=recorded())
    assert connector.capabilities == frozenset()
    assert traits_of("telepathy").is_simulated is False
    (refused,) = start(connector, [start_request(machine())], now=NOW)
    assert refused == ConnectorError(
        UNUSABLE,
        "There is no connector of the kind 'telepathy'.",
        is_retryable=True,
        nothing_was_sent=True,
        retry_after=60.0,
    )
    (look,) = connector.observe([observe_request(machine())], now=NOW)
    assert isinstance(look, ConnectorError)
    assert look.is_retryable
    (found,) = connector.find([start_request(machine())], now=NOW)
    assert isinstance(found, ConnectorError)
    assert not found.nothing_was_sent
    assert isinstance(connector.discover(), ConnectorError)
    with pytest.raises(UnusableError, match="telepathy"):
        make_connector("telepathy", {}, catalogue=recorded())


def _kind(**changes: Any) -> Kind:
    base = Kind(
        name="cloud",
        label="Cloud",
        configuration=SimulatorConfiguration,
        factory="connectors.simulator.make",
        capabilities=frozenset(),
        traits=Traits(orchestrator=Orchestrator.PLATFORM),
        extra="cloud",
    )
    return replace(base, **changes)


def test_an_extra_that_is_not_installed_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (_kind(modules=("no_such_sdk.client",)), _kind(factory="no_such_sdk.make")):
        monkeypatch.setitem(KINDS, "cloud", kind)
        with pytest.raises(UnusableError) as caught:
            make_connector("cloud", {}, catalogue=recorded())
        assert caught.value.trouble.code is TroubleCode.EXTRA_MISSING
        assert "run pip install 'hotpatch-portal[cloud]'" in str(caught.value)


def test_a_secret_that_is_missing_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cloud", _kind(configuration=Everything))
    trouble = trouble_of("cloud", GOOD)
    assert trouble is not None
    assert trouble.code is TroubleCode.SECRET_MISSING
    assert trouble.detail == GOOD["key"], "the name; every language has a sentence of its own"
    assert "PORTAL_SECRET_MY_KEY" in str(trouble)
    monkeypatch.setenv("PORTAL_SECRET_MY_KEY", "hunter2")
    assert trouble_of("cloud", GOOD) is None


def test_a_secret_is_read_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2\n")
    told = {"PORTAL_SECRET_A": "one", "PORTAL_SECRET_B_FILE": str(tmp_path / "key"), "SECRET_KEY": "the portal's own"}
    assert read_secret("a", told).reveal() == "one"
    assert read_secret("b", told).reveal() == "hunter2"
    assert repr(read_secret("a", told)) == f"{read_secret('a', told)}" == "Secret(…)"
    for name in ("c", "", "SECRET_KEY", "a\nb", "../../etc/passwd", "b_file"):
        with pytest.raises(SecretMissingError):
            read_secret(name, told)
    with pytest.raises(SecretMissingError, match="PORTAL_SECRET_B"):
        read_secret("b", {"PORTAL_SECRET_B_FILE": str(tmp_path / "nothing")})
    assert is_secret_name("azure_client")
    assert not is_secret_name("9lives")


def test_no_sdk_is_imported_before_its_first_use() -> None:
    code = (
        "import sys; from connectors.registry import KINDS; "
        "late = {'azure', 'pypsrp', 'asyncssh', 'django'} | {name for kind in KINDS.values() for name in kind.modules}; "
        "print([m for m in sys.modules if m in late or m.split('.')[0] in late])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
