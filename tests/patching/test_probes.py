"""Health probes: the tables of docs/rules.md, and that no text is half read."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.probes import (
    HealthVerdict,
    Probe,
    ProbeError,
    ProbeProblem,
    is_outside,
    judge_answer,
    may_reach,
    parse_probe,
    read_networks,
)
from tests.patching.tables import flag, rows, words
from vms.texts import PROBE_PROBLEMS


@pytest.mark.parametrize("row", rows("probe"), ids=lambda row: row["text"])
def test_a_probe_is_read_or_refused(row: dict[str, str]) -> None:
    if not row["problem"]:
        probe = parse_probe(f"  {row['text']} ")
        assert str(probe) == row["kept as"]
        assert parse_probe(str(probe)) == probe
        return
    with pytest.raises(ProbeError) as caught:
        parse_probe(row["text"])
    assert caught.value.problem == row["problem"]
    # a table cannot show a space
    assert caught.value.entry.strip() == row["wrong part"]


def test_every_problem_is_in_the_table_and_has_its_words() -> None:
    assert {row["problem"] for row in rows("probe")} | {ProbeProblem.TOO_LONG} == {"", *ProbeProblem}
    assert set(PROBE_PROBLEMS) == set(ProbeProblem)
    with pytest.raises(ProbeError) as caught:
        parse_probe(f"http://web-013/{'x' * 200}")
    assert caught.value.problem is ProbeProblem.TOO_LONG


@given(st.text(max_size=60) | st.from_regex(r"(tcp|https?)://[a-z0-9.:@\[\]/?\r\n% -]{0,30}", fullmatch=True))
def test_no_text_is_half_read_and_none_can_break_out_of_a_request(text: str) -> None:
    try:
        probe = parse_probe(text)
    except ProbeError:
        return
    assert parse_probe(str(probe)) == probe
    assert all("!" <= character <= "~" for character in probe.authority + probe.path)
    assert "@" not in probe.authority
    assert 1 <= probe.port <= 65_535


hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,8})?", fullmatch=True) | st.ip_addresses().map(
    str
)


@given(st.sampled_from(["tcp", "http", "https"]), hosts, st.integers(1, 65_535))
def test_a_probe_survives_its_text(scheme: str, host: str, port: int) -> None:
    probe = Probe(scheme, host, port, "" if scheme == "tcp" else "/health")
    assert parse_probe(str(probe)) == probe


@pytest.mark.parametrize("row", rows("probe-networks"), ids=lambda row: " ".join(row.values()))
def test_where_a_probe_may_go(row: dict[str, str]) -> None:
    networks, _malformed = read_networks(words(row["networks"]))
    assert may_reach(row["address"], networks) is flag(row["may be asked"])


@given(st.ip_addresses(), st.ip_addresses(v=4))
def test_an_address_is_in_its_own_network_alone(one: object, other: object) -> None:
    network = ip_network(str(one))
    assert may_reach(str(one), [network]) is (getattr(one, "ipv4_mapped", None) is None)
    assert may_reach(str(other), [network]) is (one == other)


def test_what_is_no_network_allows_nothing_and_is_named() -> None:
    networks, malformed = read_networks(["10.0.0.0/8", "ten", "", " fd00::/8 "])
    assert [str(network) for network in networks] == ["10.0.0.0/8", "fd00::/8"]
    assert malformed == ("ten", "")


def test_an_address_outside_is_known_without_asking_and_a_name_is_not() -> None:
    networks = [ip_network("10.0.0.0/8")]
    assert is_outside(parse_probe("tcp://11.0.0.4:22"), networks)
    assert is_outside(parse_probe("tcp://[fd00::4]:22"), networks)
    assert not is_outside(parse_probe("tcp://10.0.0.4:22"), networks)
    assert not is_outside(parse_probe("tcp://web-013:22"), networks)
    assert ip_address("10.0.0.4") in networks[0]


@pytest.mark.parametrize("row", rows("probe-answers"), ids=lambda row: " ".join(row.values()))
def test_what_an_answer_means(row: dict[str, str]) -> None:
    minutes = row["minutes since the end"]
    since_end = timedelta(minutes=float(minutes)) if minutes else None
    assert judge_answer(is_healthy=flag(row["healthy"]), since_end=since_end) is HealthVerdict(row["what follows"])
