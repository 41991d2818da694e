"""Microsoft's validator (oav) over the traffic that the tests kept, and over faults planted in it.

    ARM_TRAFFIC=DIRECTORY pytest tests/arm_api
    python -m tests.arm_api.validate DIRECTORY SPECIFICATION OAV

SPECIFICATION: the folder of that name in Azure's azure-rest-api-specs; OAV: the program. Ends with 1 if an answer, or the request of
an answer that was given, is not as Microsoft defines it, or if a planted fault is not found. An exchange of a version for which
there is no definition is held against the newest one, without what was asked. Of what was refused, the answer alone is looked at.
That a client sends back what it may only read, or a word in other letters, as az does, is no finding: the door takes both.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Exchange = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """One of Microsoft's documents in each of these versions, newest last, and the paths that are in it."""

    name: str
    paths: re.Pattern[str]
    file: str
    versions: tuple[str, ...]


def _definition(name: str, paths: str, file: str, *versions: str) -> Definition:
    return Definition(name, re.compile(paths, re.IGNORECASE | re.ASCII), file, versions)


_GROUP = r"/subscriptions/[\w().-]+/resourceGroups/[\w().-]+"
DEFINITIONS = (
    _definition(
        "Compute",
        rf"({_GROUP}|/subscriptions/[\w().-]+)/providers/Microsoft\.Compute/(locations/[\w().-]+/)?virtualMachines(/[\w().-]+(/[\w().-]+)?)?/?",
        "compute/resource-manager/Microsoft.Compute/ComputeRP/stable/{}/virtualMachine.json",
        *("2022-11-01", "2024-07-01", "2024-11-01"),
    ),
    _definition(
        "HybridCompute",
        rf"({_GROUP}|/subscriptions/[\w().-]+)/providers/Microsoft\.HybridCompute/machines(/[\w().-]+(/[\w().-]+)?)?/?",
        "hybridcompute/resource-manager/Microsoft.HybridCompute/stable/{}/HybridCompute.json",
        *("2022-12-27", "2024-07-10"),
    ),
    _definition(
        "Resource Graph",
        r"/providers/Microsoft\.ResourceGraph/resources",
        "resourcegraph/resource-manager/Microsoft.ResourceGraph/stable/{}/resourcegraph.json",
        *("2019-04-01", "2021-03-01", "2022-10-01", "2024-04-01"),
    ),
    _definition(
        "Network",
        rf"{_GROUP}/providers/Microsoft\.Network/networkInterfaces/[\w().-]+",
        "network/resource-manager/Microsoft.Network/stable/{}/networkInterface.json",
        "2022-01-01",
    ),
    _definition(
        "Subscriptions",
        r"/subscriptions(/[\w().-]+)?|/tenants",
        "resources/resource-manager/Microsoft.Resources/stable/{}/subscriptions.json",
        "2022-12-01",
    ),
)
_HOST = "https://management.azure.com"
_POLL = re.compile(r"/providers/(Microsoft\.\w+)/locations/[^/]+/operation\w+/", re.IGNORECASE)
_PLACE = f"{_HOST}/subscriptions/11111111-2222-4333-8444-000000000001/resourceGroups/rg/providers"
_PLAN = {
    "maximumDuration": "PT2H",
    "rebootSetting": "Never",
    "windowsParameters": {"classificationsToInclude": ["Security"]},
}


_TAKEN = frozenset({"READONLY_PROPERTY_NOT_ALLOWED_IN_REQUEST", "ENUM_CASE_MISMATCH"})


def definition_of(path: str) -> Definition | None:
    """The document that has this path."""
    return next((one for one in DEFINITIONS if one.paths.fullmatch(path)), None)


# --- what is held against which definition -------------------------------------------------------------------------


def read(exchange: Exchange) -> tuple[Definition, str, Exchange] | str:
    """The definition and version for an exchange, as the validator is to see it; or why there is none."""
    asked, got = deepcopy(exchange["liveRequest"]), deepcopy(exchange["liveResponse"])
    path, _, query = asked["url"].removeprefix(_HOST).partition("?")
    if ((got.get("body") or {}).get("error") or {}).get("code") == "InvalidResourceType":
        return "addresses at which there is nothing"
    if poll := _POLL.search(path):
        return _result(poll[1], got)
    definition = definition_of(path)
    if definition is None:
        return re.sub(r"(subscriptions|resourcegroups)/[^/]+", r"\1/…", path.lower())
    if got["statusCode"] == "405":
        return "405, of which no definition speaks"
    given = re.search(r"api-version=([^&]*)", query)
    version = given[1] if given and given[1] in definition.versions else definition.versions[-1]
    is_own = given is not None and given[1] == version
    if int(got["statusCode"]) >= 400 or not is_own:
        _ask_rightly(asked, definition)
    asked["url"] = f"{asked['url'].partition('?')[0].rstrip('/')}?api-version={version}"
    return definition, version, {"liveRequest": asked, "liveResponse": got}


def _ask_rightly(asked: Exchange, definition: Definition) -> None:
    """What was asked wrongly on purpose, or in words of a later version, as it should have been asked."""
    asked.pop("body", None)
    if asked["method"] == "PUT":
        asked["body"] = {"location": "japaneast"}
    elif asked["method"] == "PATCH":
        asked["body"] = {"tags": {}}
    elif definition.name == "Resource Graph":
        asked["body"] = {"query": "resources"}
    elif asked["url"].partition("?")[0].lower().endswith("/installpatches"):
        asked["body"] = _PLAN


def _result(provider: str, got: Exchange) -> tuple[Definition, str, Exchange] | str:
    """A poll is in no definition, but the result that it carries is: as the answer of the POST."""
    body = got.get("body") or {}
    result = (body.get("properties") or {}).get("output") or body
    verb = {"assessmentActivityId": "assess", "installationActivityId": "install"}
    found = next((word for name, word in verb.items() if name in result), None)
    if found is None:
        return "polls without a result"
    kind = "virtualMachines" if provider.lower() == "microsoft.compute" else "machines"
    path = f"{_PLACE}/{provider}/{kind}/m/{found}Patches"
    definition = definition_of(path.removeprefix(_HOST))
    assert definition is not None
    version = definition.versions[-1]
    asked: Exchange = {
        "method": "POST",
        "url": f"{path}?api-version={version}",
        "headers": {"Content-Type": "application/json"},
    }
    if found == "install":
        asked["body"] = _PLAN
    response = {"statusCode": "200", "headers": {"Content-Type": "application/json"}, "body": result}
    return definition, version, {"liveRequest": asked, "liveResponse": response}


# --- the validator -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validator:
    """The program, and the folder of definitions."""

    program: Path
    specification: Path

    def findings(self, definition: Definition, version: str, exchanges: Sequence[Exchange]) -> list[str]:
        """What is wrong with these exchanges of one definition. Its report names no exchange: each is asked for, if need be."""
        found = self._run(definition, version, exchanges)
        if not found or len(exchanges) == 1:
            return found
        half = len(exchanges) // 2
        return [
            *self.findings(definition, version, exchanges[:half]),
            *self.findings(definition, version, exchanges[half:]),
        ]

    def _run(self, definition: Definition, version: str, exchanges: Sequence[Exchange]) -> list[str]:
        with TemporaryDirectory() as name:
            place = Path(name)
            (place / "traffic").mkdir()
            for number, exchange in enumerate(exchanges):
                (place / "traffic" / f"{number:05}.json").write_text(json.dumps(exchange))
            document = self.specification / definition.file.format(version)
            options = ["-l", "error", "-f", str(place / "log"), "--jsonReport", str(place / "report.json")]
            done = subprocess.run(
                [self.program, "validate-traffic", place / "traffic", document, *options, "-r", place / "report.html"],
                capture_output=True,
                text=True,
                check=False,
                cwd=place,
            )
            told = f"{exchanges[0]['liveRequest']['method']} {exchanges[0]['liveRequest']['url']}"
            if not (place / "report.json").exists():
                return [f"{told}: no report: {done.stderr[-300:]}"]
            report = json.loads((place / "report.json").read_text())
            found = [
                f"{told}: {e['issueSource']} {e['errorCode']}: {e['errorMessage']}"
                for e in report["errors"]
                if e["issueSource"] != "request" or e["errorCode"] not in _TAKEN
            ]
            if "Undefined operation" in done.stdout + done.stderr or not report["coveredOperations"]:
                found.append(f"{told}: no such operation")
            return found or ([f"{told}: failed"] if report["failedOperations"] and not report["errors"] else [])


# --- planted faults ------------------------------------------------------------------------------------------------


def _is(method: str, ending: str, status: str = "200") -> Callable[[Exchange], bool]:
    def fits(exchange: Exchange) -> bool:
        asked = exchange["liveRequest"]
        path = asked["url"].partition("?")[0]
        same = exchange["liveResponse"]["statusCode"] == status
        return same and asked["method"] == method and re.search(ending, path, re.IGNORECASE) is not None

    return fits


_ONE = _is("GET", r"/virtualMachines/[^/]+$")
_ASSESSED, _INSTALLED = _is("POST", "Compute/.*/assessPatches$"), _is("POST", "Compute/.*/installPatches$")
_ASKED = _is("POST", "Compute/.*/installPatches$", "202")
_ARC, _GRAPH = _is("POST", "HybridCompute/.*/assessPatches$"), _is("POST", "/ResourceGraph/|ResourceGraph")
_PLACES, _REFUSED = _is("GET", "/subscriptions$"), _is("GET", r"/virtualMachines/[^/]+$", "404")
_GONE = object()
_BODY, _SENT = ("liveResponse", "body"), ("liveRequest", "body")
# What each is, where it is planted, and the value (or that there is none).
FAULTS: tuple[tuple[str, Callable[[Exchange], bool], tuple[str, ...], object], ...] = (
    ("a machine without its location", _ONE, (*_BODY, "location"), _GONE),
    ("a page without its rows", _is("GET", "/virtualMachines$"), (*_BODY, "value"), _GONE),
    ("a list of subscriptions without nextLink", _PLACES, (*_BODY, "nextLink"), _GONE),
    ("rows without their count", _GRAPH, (*_BODY, "count"), _GONE),
    ("a count that is a text", _ASSESSED, (*_BODY, "otherPatchCount"), "3"),
    ("a flag that is a text", _INSTALLED, (*_BODY, "maintenanceWindowExceeded"), "false"),
    ("a list that is an object", _INSTALLED, (*_BODY, "patches"), {}),
    ("a moment that is none", _ARC, (*_BODY, "startDateTime"), "yesterday"),
    ("a property that nobody knows", _ASSESSED, (*_BODY, "patchCount"), 3),
    ("a closed enum with another word", _GRAPH, (*_BODY, "resultTruncated"), "perhaps"),
    ("201 for 202", _ASKED, ("liveResponse", "statusCode"), "201"),
    ("204 for a machine", _ONE, ("liveResponse", "statusCode"), "204"),
    ("200 without a body", _ONE, _BODY, _GONE),
    ("an error outside the envelope", _REFUSED, _BODY, {"code": "ResourceNotFound", "message": "x"}),
    ("a plan without rebootSetting", _ASKED, (*_SENT, "rebootSetting"), _GONE),
    ("a plan with a property that nobody knows", _ASKED, (*_SENT, "rebootSettings"), "Never"),
    ("a query of 5,000 rows", _GRAPH, (*_SENT, "options"), {"$top": 5_000}),
    (
        "a version that there is not",
        _ONE,
        ("liveRequest", "url"),
        f"{_PLACE}/Microsoft.Compute/virtualMachines/m?api-version=2031-01-01",
    ),
)


def planted(exchange: Exchange, path: tuple[str, ...], value: object) -> Exchange:
    """The exchange with a fault."""
    copy = deepcopy(exchange)
    place = copy
    for name in path[:-1]:
        place = place[name]
    if value is _GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


# --- the command ---------------------------------------------------------------------------------------------------
Sorted = dict[tuple[Definition, str], list[Exchange]]


def _sorted(directory: Path) -> tuple[Sorted, Counter[str]]:
    found: Sorted = defaultdict(list)
    uncovered: Counter[str] = Counter()
    for file in sorted(directory.glob("*.json")):
        match read(json.loads(file.read_text())):
            case str(why):
                uncovered[why] += 1
            case (definition, version, exchange):
                found[definition, version].append(exchange)
    return found, uncovered


def _unseen(validator: Validator, found: Mapping[tuple[Definition, str], list[Exchange]]) -> Iterator[str]:
    """The planted faults that the validator does not find."""
    for name, fits, path, value in FAULTS:
        hosts = (
            (definition, version, exchange)
            for (definition, version), exchanges in found.items()
            if version == definition.versions[-1] or definition.name == "Resource Graph"
            for exchange in exchanges
            if fits(exchange)
        )
        host = next(hosts, None)
        if host is None:
            yield f"{name}: no exchange to plant it in"
        elif not validator.findings(host[0], host[1], [planted(host[2], path, value)]):
            yield name


def _tell(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def main(directory: str, specification: str, program: str) -> int:
    """Validate, plant, and tell."""
    validator = Validator(Path(program).absolute(), Path(specification).absolute())
    found, uncovered = _sorted(Path(directory))
    findings: list[str] = []
    for (definition, version), exchanges in sorted(found.items(), key=lambda item: (item[0][0].name, item[0][1])):
        mine = validator.findings(definition, version, exchanges)
        _tell(f"{definition.name} {version}: {len(exchanges)} exchanges, {len(mine)} findings")
        findings += mine
    _tell(*(f"  {finding}" for finding in findings))
    _tell("in no definition:", *(f"  {count} × {why}" for why, count in uncovered.most_common()))
    unseen = list(_unseen(validator, found))
    _tell(f"planted faults: {len(FAULTS) - len(unseen)} of {len(FAULTS)} found", *(f"  {name}" for name in unseen))
    return int(bool(findings or unseen))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
