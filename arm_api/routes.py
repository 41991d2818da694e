"""Every operation that the door answers, in one table: what is asked for, in which versions, and who answers.

The OpenAPI document and the tests are made from the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from arm_api import versions
from arm_api.calls import Answer, Call
from arm_api.errors import ArmCode, ArmError
from arm_api.handlers import graph, licenses, machines, patching, places, settings
from arm_api.kinds import ARC, COMPUTE, MachineKind

# Names as Azure allows them. Dots alone are no name, and what a path has escaped is none either.
_NAME = r"(?!\.+(?:/|$))[\w().-]{1,120}"
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Route:
    """One operation. `name` as Microsoft's definitions have it; `action` is the permission that Azure asks for."""

    name: str
    method: str
    path: str
    versions: tuple[str, ...]
    action: str
    handler: Callable[[Call], Answer]
    provider: str = ""  # whose versions they are; empty: ARM's own
    is_patching: bool = False  # counts against the budgets of patch operations
    is_poll: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like, in any case of letters."""
        parts = _PLACE.split(self.path)
        literal = [re.escape(part) for part in parts[::2]]
        named = [f"(?P<{name}>{_NAME})" for name in parts[1::2]]
        return re.compile("".join(a + b for a, b in zip(literal, [*named, ""], strict=True)), re.IGNORECASE)

    @property
    def is_write(self) -> bool:
        """Whether it asks for something to be done."""
        return self.method in {"POST", "PUT", "PATCH", "DELETE"} and not self.path.startswith("/providers/")


_SUB = "/subscriptions/{subscription}"
_GROUP = f"{_SUB}/resourceGroups/{{group}}"


def _machines(kind: MachineKind, noun: str) -> Iterator[Route]:
    """The operations on one type of machine."""
    of = partial(Route, versions=kind.versions, provider=kind.provider)
    one = f"{_GROUP}/providers/{kind.type}/{{name}}"
    read, write = f"{kind.type}/read", f"{kind.type}/write"
    polls = f"{kind.provider}/locations/{kind.status_path}/read"
    at = f"{_SUB}/providers/{kind.provider}/locations/{{location}}"
    bound = {
        "list_all": partial(machines.of_subscription, kind=kind),
        "list": partial(machines.of_group, kind=kind),
        "get": partial(machines.one, kind=kind),
        "change": partial(settings.change, kind=kind),
        "assess": partial(patching.assess, kind=kind),
        "install": partial(patching.install, kind=kind),
        "status": partial(patching.status, kind=kind),
    }
    yield of(f"{noun}_ListAll", "GET", f"{_SUB}/providers/{kind.type}", action=read, handler=bound["list_all"])
    yield of(f"{noun}_List", "GET", f"{_GROUP}/providers/{kind.type}", action=read, handler=bound["list"])
    yield of(f"{noun}_Get", "GET", one, action=read, handler=bound["get"])
    yield of(f"{noun}_Update", "PATCH", one, action=write, handler=bound["change"])
    yield of(f"{noun}_CreateOrUpdate", "PUT", one, action=write, handler=bound["change"])
    for verb in ("assess", "install"):
        yield of(
            f"{noun}_{verb.title()}Patches",
            "POST",
            f"{one}/{verb}Patches",
            action=f"{kind.type}/{verb}Patches/action",
            handler=bound[verb],
            is_patching=True,
        )
    yield of(
        f"{noun}_OperationStatus",
        "GET",
        f"{at}/{kind.status_path}/{{operation}}",
        action=polls,
        handler=bound["status"],
        is_poll=True,
    )


def _licenses() -> Iterator[Route]:
    """The operations on the licence profile of an Arc machine."""
    every = f"{_GROUP}/providers/{ARC.type}/{{name}}/licenseProfiles"
    actions = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
    for name, method, path, handler in (
        ("List", "GET", every, licenses.every),
        ("Get", "GET", f"{every}/default", licenses.one),
        ("CreateOrUpdate", "PUT", f"{every}/default", licenses.put),
        ("Update", "PATCH", f"{every}/default", licenses.patch),
        ("Delete", "DELETE", f"{every}/default", licenses.remove),
    ):
        action = f"{ARC.type}/licenseProfiles/{actions[method]}"
        yield Route(f"LicenseProfiles_{name}", method, path, versions.LICENSES, action, handler, ARC.provider)


ROUTES: tuple[Route, ...] = (
    Route("Tenants_List", "GET", "/tenants", versions.RESOURCES, "Microsoft.Resources/tenants/read", places.tenants),
    Route(
        "Subscriptions_List",
        "GET",
        "/subscriptions",
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/read",
        places.subscriptions,
    ),
    Route(
        "Subscriptions_Get",
        "GET",
        _SUB,
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/read",
        places.subscription,
    ),
    Route(
        "ResourceGroups_List",
        "GET",
        f"{_SUB}/resourceGroups",
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        places.groups,
    ),
    Route(
        "ResourceGroups_Get",
        "GET",
        _GROUP,
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/resourceGroups/read",
        places.group,
    ),
    Route(
        "Resources_List",
        "GET",
        f"{_SUB}/resources",
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/resources/read",
        places.resources,
    ),
    Route(
        "Resources_ListByResourceGroup",
        "GET",
        f"{_GROUP}/resources",
        versions.RESOURCES,
        "Microsoft.Resources/subscriptions/resources/read",
        places.resources,
    ),
    Route(
        "Permissions_List",
        "GET",
        f"{_SUB}/providers/Microsoft.Authorization/permissions",
        versions.AUTHORIZATION,
        "Microsoft.Authorization/permissions/read",
        places.permissions,
        "Microsoft.Authorization",
    ),
    Route(
        "Resources_Query",
        "POST",
        "/providers/Microsoft.ResourceGraph/resources",
        versions.GRAPH,
        "Microsoft.ResourceGraph/resources/read",
        graph.query,
        "Microsoft.ResourceGraph",
    ),
    *_machines(COMPUTE, "VirtualMachines"),
    Route(
        "VirtualMachines_ListByLocation",
        "GET",
        f"{_SUB}/providers/Microsoft.Compute/locations/{{location}}/virtualMachines",
        versions.COMPUTE,
        f"{COMPUTE.type}/read",
        partial(machines.of_location, kind=COMPUTE),
        COMPUTE.provider,
    ),
    Route(
        "VirtualMachines_InstanceView",
        "GET",
        f"{_GROUP}/providers/{COMPUTE.type}/{{name}}/instanceView",
        versions.COMPUTE,
        f"{COMPUTE.type}/instanceView/read",
        machines.view,
        COMPUTE.provider,
    ),
    Route(
        "NetworkInterfaces_Get",
        "GET",
        f"{_GROUP}/providers/Microsoft.Network/networkInterfaces/{{name}}",
        versions.NETWORK,
        "Microsoft.Network/networkInterfaces/read",
        machines.interface,
        "Microsoft.Network",
    ),
    *_machines(ARC, "Machines"),
    *_licenses(),
    Route(
        "Machines_OperationResult",
        "GET",
        f"{_SUB}/providers/{ARC.provider}/locations/{{location}}/{ARC.result_path}/{{operation}}",
        versions.HYBRID_COMPUTE,
        f"{ARC.provider}/locations/{ARC.result_path}/read",
        partial(patching.result, kind=ARC),
        ARC.provider,
        is_poll=True,
    ),
)


def find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request and what stands in its path. Raises ArmError."""
    asked = path.removesuffix("/")
    at_path = [(route, match) for route in ROUTES if (match := route.pattern.fullmatch(asked))]
    for route, match in at_path:
        if route.method == method:
            return route, match.groupdict()
    if at_path:
        allowed = ", ".join(sorted({route.method for route, _match in at_path}))
        raise ArmError(
            ArmCode.METHOD_NOT_ALLOWED, f"The method '{method}' is not supported here.", headers={"Allow": allowed}
        )
    raise ArmError(ArmCode.INVALID_TYPE, f"This portal has nothing at '{path[:300]}'.")


def check_version(route: Route, version: str) -> None:
    """Refuse a version that the provider does not have, as Azure does. Raises ArmError."""
    if not version:
        message = "The api-version query parameter (?api-version=) is required for all requests."
        raise ArmError(ArmCode.MISSING_VERSION, message)
    if version in route.versions:
        return
    supported = ", ".join(route.versions)
    if route.provider:
        kind = route.path.rpartition("/providers/")[2].split("/{")[0].partition("/")[2] or "locations"
        message = (
            f"No registered resource provider found for API version '{version[:40]}' for type '{kind}'. "
            f"The supported api-versions are '{supported}'."
        )
        raise ArmError(ArmCode.NO_PROVIDER, message)
    raise ArmError(
        ArmCode.INVALID_VERSION,
        f"The api-version '{version[:40]}' is invalid. The supported versions are '{supported}'.",
    )
