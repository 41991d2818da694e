"""Every kind of connector: its name, what it is made from, what it can do, and how it is to be used.

A connection in the database has the name of a kind and a configuration as JSON. This file is the only one that knows
which kinds there are; a new one is an entry here (docs/recipes.md has the recipe).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from connectors.azure import configuration as azure
from connectors.configuration import ConfigurationError, FieldProblem, FieldType, day_of, fields_of, read, to_json
from connectors.permissions import Guide
from connectors.protocol import Capability, ConnectorError, Orchestrator, Traits
from connectors.qualification import Kit, Reaches
from connectors.secrets import Secret, SecretMissingError, is_secret_name, read_secret, variable_of
from connectors.simulator.configuration import CAPABILITIES, TRAITS, SimulatorConfiguration
from patching.codes import ErrorCode
from patching.recurrence import FIRST_DAY, LAST_DAY

if TYPE_CHECKING:
    from connectors.catalogue import Catalogue
    from connectors.protocol import (
        Connector,
        DiscoveredPage,
        Observation,
        ObserveRequest,
        StartChunk,
        Started,
        StartRequest,
    )

SIMULATOR = "simulator"
AZURE = "azure"
UNUSABLE = ErrorCode.CONNECTION_UNUSABLE
LOOK_AGAIN_AFTER = 60.0  # seconds until a connection that cannot be used is asked again


class Grade(StrEnum):
    """How real a connector is. None claims a grade that it has not earned."""

    SIMULATED = "simulated"
    PROTOCOL_PROVEN = "protocol_proven"  # the real protocol, against a server of ours or recorded traffic
    QUALIFIED = "qualified"  # run against the real thing, with a dated report


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of connector.

    `label` is English; the floors with pages translate it. `factory` is the dotted path of `(configuration, catalogue) ->
    Connector`, imported on first use. `extra` is the extra of this package that brings `modules`, which the factory
    imports. `kit`: the dotted path of its qualification kit, `guide` that of `(configuration) -> Guide`; neither imports an SDK.
    """

    name: str
    label: str
    configuration: type[Any]
    factory: str
    capabilities: frozenset[Capability]
    traits: Traits
    extra: str = ""
    modules: tuple[str, ...] = ()
    kit: str = ""
    guide: str = ""

    @property
    def grade(self) -> Grade:
        """How real it is, before a connection of this kind has run against the real thing."""
        return Grade.SIMULATED if self.traits.is_simulated else Grade.PROTOCOL_PROVEN


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name=SIMULATOR,
            label="Simulator",
            configuration=SimulatorConfiguration,
            factory="connectors.simulator.make",
            capabilities=CAPABILITIES,
            traits=TRAITS,
        ),
        Kind(
            name=AZURE,
            label="Azure",
            configuration=azure.AzureConfiguration,
            factory="connectors.azure.connector.make",
            capabilities=azure.CAPABILITIES,
            traits=azure.TRAITS,
            extra="azure",
            modules=("azure.core", "azure.identity", "azure.mgmt.compute", "azure.mgmt.hybridcompute"),
            kit="connectors.azure.qualification.KIT",
            guide="connectors.azure.guide.guide",
        ),
    )
}
_UNKNOWN = Traits()


# --- what is known of a connection without making its connector -------------------------------------------------------


def traits_of(kind: str) -> Traits:
    """The traits of a kind. An unknown kind counts as real, and as one whose platform patches by itself."""
    return KINDS[kind].traits if kind in KINDS else _UNKNOWN


def capabilities_of(kind: str) -> frozenset[Capability]:
    """The capabilities of a kind; none for an unknown kind."""
    return KINDS[kind].capabilities if kind in KINDS else frozenset()


def kinds_with(capability: Capability) -> list[str]:
    """The kinds that have this capability."""
    return [kind.name for kind in KINDS.values() if capability in kind.capabilities]


def kinds_that_leave_patching_to_the_portal() -> list[str]:
    """The kinds behind which nothing patches by itself, whatever the platform."""
    return [kind.name for kind in KINDS.values() if kind.traits.orchestrator is Orchestrator.PORTAL]


def simulated_kinds() -> list[str]:
    """The kinds whose machines are simulated."""
    return [kind.name for kind in KINDS.values() if kind.traits.is_simulated]


def real_kinds() -> list[str]:
    """The kinds that speak to something real. A connection of a kind that is not known reaches nothing at all."""
    return [name for name, kind in KINDS.items() if not kind.traits.is_simulated]


def catalogue_date_of(config: object) -> date | None:
    """The day up to which releases count behind a connection of this configuration; None: today.

    Only a kind that simulates has such a field.
    """
    value = config.get("catalogue_date") if isinstance(config, Mapping) else None
    return catalogue_day(value) if isinstance(value, str) else None


@lru_cache(maxsize=256)
def catalogue_day(text: str | None) -> date | None:
    """`catalogue_date_of` for the text that the configuration holds. What is no such day is told by `trouble_of`."""
    day = day_of(text)
    return day if day is not None and FIRST_DAY <= day <= LAST_DAY else None


# --- what is wrong with one -------------------------------------------------------------------------------------------


class TroubleCode(StrEnum):
    """Why no connector can be made of a connection."""

    UNKNOWN_KIND = "unknown_kind"
    CONFIGURATION = "configuration"
    EXTRA_MISSING = "extra_missing"
    SECRET_MISSING = "secret_missing"  # noqa: S105 (a message id)
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why no connector can be made. `detail` is the kind, the command to run, the secret's name or the error."""

    code: TroubleCode
    detail: str = ""
    problems: tuple[FieldProblem, ...] = ()

    def __str__(self) -> str:
        """One English sentence, for logs and the doctor."""
        if self.code is TroubleCode.UNKNOWN_KIND:
            return f"There is no connector of the kind {self.detail!r}."
        if self.code is TroubleCode.CONFIGURATION:
            return f"Its configuration is not understood: {'; '.join(map(str, self.problems))}."
        if self.code is TroubleCode.EXTRA_MISSING:
            return f"What this kind needs is not installed: run {self.detail}."
        if self.code is TroubleCode.SECRET_MISSING:
            return str(SecretMissingError(self.detail, variable_of(self.detail)))
        return self.detail


class UnusableError(ValueError):
    """No connector can be made of a connection; `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


def trouble_of(kind: str, config: object) -> Trouble | None:
    """What keeps a connector from being made of this; None: nothing that shows before it is made."""
    try:
        checked(kind, config)
    except UnusableError as error:
        return error.trouble
    return None


def checked(kind: str, config: object) -> Any:
    """The typed configuration. Raises UnusableError if kind, configuration, installation or secrets do not allow it."""
    known = KINDS.get(kind)
    if known is None:
        raise UnusableError(Trouble(TroubleCode.UNKNOWN_KIND, kind))
    try:
        conf = read(known.configuration, config)
    except ConfigurationError as error:
        raise UnusableError(Trouble(TroubleCode.CONFIGURATION, problems=error.problems)) from None
    if not all(map(_is_installed, known.modules)):
        raise UnusableError(_extra_missing(known))
    for spec in fields_of(known.configuration):
        name = getattr(conf, spec.name)
        if spec.holds is FieldType.SECRET and name is not None:
            try:
                read_secret(name)
            except SecretMissingError as error:
                raise UnusableError(Trouble(TroubleCode.SECRET_MISSING, error.name)) from None
    return conf


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _extra_missing(kind: Kind) -> Trouble:
    return Trouble(TroubleCode.EXTRA_MISSING, f"pip install 'hotpatch-portal[{kind.extra}]'")


# --- what a kind has beside its connector ---------------------------------------------------------------------------------


def kit_of(kind: str) -> Kit | None:
    """The qualification kit of a kind; None where it has none."""
    path = KINDS[kind].kit if kind in KINDS else ""
    kit: Kit | None = _imported(path) if path else None
    return kit


def guide_of(kind: str, config: object) -> Guide | None:
    """What to do on the other side of a connection of this kind; None where there is nothing, or nobody can tell."""
    path = KINDS[kind].guide if kind in KINDS else ""
    if not path:
        return None
    try:
        guide: Guide = _imported(path)(read(KINDS[kind].configuration, config))
    except ConfigurationError:
        return None
    return guide


def endpoint_of(kind: str, config: object) -> tuple[str, str]:
    """The address that a connection leads to, and the vendor's name of its cloud; both empty where nobody can tell."""
    try:
        conf = read(KINDS[kind].configuration, config) if kind in KINDS else None
    except ConfigurationError:
        return "", ""
    return (conf.address, conf.cloud) if isinstance(conf, Reaches) else ("", "")


def _secret_names(kind: str, config: object) -> list[str]:
    known = KINDS.get(kind)
    names = [spec.name for spec in fields_of(known.configuration) if spec.holds is FieldType.SECRET] if known else []
    values = [config.get(name) if isinstance(config, Mapping) else None for name in names]
    return [value for value in values if isinstance(value, str) and is_secret_name(value)]


def secret_variables(kind: str, config: object) -> list[str]:
    """The environment variables of the secrets that this configuration names."""
    return [variable_of(name) for name in _secret_names(kind, config)]


def secrets_of(kind: str, config: object) -> list[Secret]:
    """The secrets that this configuration names, as far as they are there."""
    found: list[Secret] = []
    for name in _secret_names(kind, config):
        with suppress(SecretMissingError):
            found.append(read_secret(name))
    return found


def configuration_digest(kind: str, config: object) -> str:
    """What a configuration is known by, however it is written down; empty where it cannot be read.

    A field that has its default says nothing, so that a later version with more fields knows the same configuration.
    """
    if kind not in KINDS:
        return ""
    configuration = KINDS[kind].configuration
    try:
        found = to_json(read(configuration, config))
    except ConfigurationError:
        return ""
    defaults = {spec.name: spec.default for spec in fields_of(configuration)}
    told = {name: value for name, value in found.items() if value != defaults[name]}
    return hashlib.sha256(json.dumps([kind, told], sort_keys=True).encode()).hexdigest()


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


# --- making one -------------------------------------------------------------------------------------------------------


def make_connector(kind: str, config: object, *, catalogue: Catalogue) -> Connector:
    """The connector of this kind with this configuration. Raises UnusableError if there can be none."""
    conf = checked(kind, config)
    known = KINDS[kind]
    try:
        connector: Connector = _imported(known.factory)(conf, catalogue)
    except ImportError as error:
        trouble = _extra_missing(known) if known.extra else Trouble(TroubleCode.BROKEN, str(error))
        raise UnusableError(trouble) from error
    return connector


def connector_for(kind: str, config: object, *, catalogue: Catalogue) -> Connector:
    """The connector of this kind with this configuration; where there can be none, one that says why to each request."""
    try:
        return make_connector(kind, config, catalogue=catalogue)
    except UnusableError as error:
        return UnusableConnector(error.trouble)


class UnusableConnector:
    """Stands in for a connector that cannot be made: nothing is sent, and each request is told why.

    Starts go back to the queue and are tried again, so that a configuration which is mended in time loses nothing; what
    runs is looked at again later. Without capabilities a start whose answer was lost is never repeated.
    """

    capabilities: frozenset[Capability] = frozenset()
    traits = _UNKNOWN

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble

    def _answer(self, *, is_start: bool) -> ConnectorError:
        return ConnectorError(
            UNUSABLE, str(self.trouble), is_retryable=True, nothing_was_sent=is_start, retry_after=LOOK_AGAIN_AFTER
        )

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:  # noqa: ARG002 (the protocol's signature)
        """Nobody knows."""
        return self._answer(is_start=False)

    def start(
        self,
        requests: Iterator[StartRequest],
        *,
        now: datetime,  # noqa: ARG002 (the protocol's signature)
        until: float,  # noqa: ARG002 (the protocol's signature)
    ) -> Iterator[StartChunk]:
        """Nothing was sent."""
        for request in requests:
            yield [(request.request_id, self._answer(is_start=True))]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:  # noqa: ARG002 (the protocol's signature)
        """Nobody knows; ask again."""
        return [self._answer(is_start=False) for _request in requests]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:  # noqa: ARG002 (the protocol's signature)
        """Nobody knows; ask again."""
        return [self._answer(is_start=False) for _request in requests]
