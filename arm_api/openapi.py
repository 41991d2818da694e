"""The OpenAPI document of the door, made from its table of routes (`manage.py arm_openapi`)."""

from __future__ import annotations

import re
from typing import Any

from arm_api.routes import ROUTES, Route
from patching.enrolment import FEATURE, SubscriptionRequest
from patching.terms import AssessmentMode, Classification, PatchMode, RebootSetting

Document = dict[str, Any]
_ABOUT = (
    "What this portal answers of Azure Resource Manager. The shapes of resources and results are Microsoft's "
    "(Microsoft.Compute, Microsoft.HybridCompute, Microsoft.ResourceGraph), with the properties that this portal knows."
)


def document() -> Document:
    """The whole document."""
    paths: dict[str, Document] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.0.3",
        "info": {"title": "Hotpatch Portal: Azure Resource Manager", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": _SCHEMAS,
            "responses": {"Error": _json("The request is refused.", {"$ref": "#/components/schemas/Error"})},
        },
    }


def _text(*values: str) -> Document:
    return {"type": "string", "enum": list(values)} if values else {"type": "string"}


def _object(**properties: Document) -> Document:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _or_null(of: Document) -> Document:
    """As sent: null says nothing."""
    return of | {"nullable": True} | ({"enum": [*of["enum"], None]} if "enum" in of else {})


def _list(of: Document) -> Document:
    return {"type": "array", "items": of}


_WINDOWS = _object(
    classificationsToInclude=_list(_text(*Classification)),
    kbNumbersToInclude=_list(_text()),
    kbNumbersToExclude=_list(_text()),
    excludeKbsRequiringReboot={"type": "boolean"},
    maxPatchPublishDate={"type": "string", "format": "date-time"},
    patchNameMasksToInclude=_list(_text()),
    patchNameMasksToExclude=_list(_text()),
)
_SETTINGS = _object(
    patchMode=_or_null(_text(*PatchMode)),
    assessmentMode=_or_null(_text(*AssessmentMode)),
    enableHotpatching=_or_null({"type": "boolean"}),
    automaticByPlatformSettings=_or_null(
        _object(
            rebootSetting=_or_null(_text(*RebootSetting)),
            bypassPlatformSafetyChecksOnUserSchedule=_or_null({"type": "boolean"}),
        )
    ),
)
_SCHEMAS: Document = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": _text(),
                    "message": _text(),
                    "target": _text(),
                    "details": _list({"type": "object"}),
                },
            }
        },
    },
    "Resource": {
        "type": "object",
        "properties": {
            "id": _text(),
            "name": _text(),
            "type": _text(),
            "location": _text(),
            "tags": {"type": "object"},
        },
    },
    "Page": {
        "type": "object",
        "required": ["value"],
        "properties": {"value": _list({"type": "object"}), "nextLink": _text()},
    },
    "InstallPatches": _object(
        maximumDuration=_text(),
        rebootSetting=_text(*RebootSetting),
        windowsParameters=_WINDOWS,
        linuxParameters=_object(),
    )
    | {"required": ["rebootSetting"]},
    # What may change. Everything else has to be as it is.
    "MachineChange": {
        "type": "object",
        "properties": {
            "tags": {"type": "object", "additionalProperties": _text()},
            "properties": {
                "type": "object",
                "properties": {
                    "osProfile": {
                        "type": "object",
                        "properties": {
                            "windowsConfiguration": {"type": "object", "properties": {"patchSettings": _SETTINGS}}
                        },
                    }
                },
            },
        },
    },
    "LicenseChange": {
        "type": "object",
        "properties": {
            "location": _text(),
            "properties": {
                "type": "object",
                "properties": {
                    "productProfile": {
                        "type": "object",
                        "properties": {
                            "productType": _text("WindowsServer"),
                            "productFeatures": _list(
                                _object(name=_text(FEATURE), subscriptionStatus=_text(*SubscriptionRequest))
                            ),
                        },
                    }
                },
            },
        },
    },
    "GraphQuery": {
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string", "minLength": 1},
            "subscriptions": _list(_text()),
            "options": {"type": "object"},
        },
    },
}


_NAME = {"type": "string", "minLength": 1, "maxLength": 120, "pattern": r"^[A-Za-z0-9_().-]*[A-Za-z0-9_()-]$"}
_PLACES = {name: {"type": "string", "format": "uuid"} for name in ("subscription", "operation")}
# Lists that are told whole.
_WHOLE = frozenset({"Tenants_List", "Permissions_List"})


def _json(description: str, schema: Document) -> Document:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _body_of(route: Route) -> str:
    if route.name.startswith("LicenseProfiles_"):
        return "LicenseChange" if route.method in {"PUT", "PATCH"} else ""
    if route.method in {"PUT", "PATCH"}:
        return "MachineChange"
    return {"installPatches": "InstallPatches", "resources": "GraphQuery"}.get(route.path.rpartition("/")[2], "")


def _operation(route: Route) -> Document:
    places = re.findall(r"\{(\w+)\}", route.path)
    parameters: list[Document] = [
        {"name": name, "in": "path", "required": True, "schema": _PLACES.get(name, _NAME)} for name in places
    ]
    parameters.append(
        {
            "name": "api-version",
            "in": "query",
            "required": True,
            "schema": {"type": "string", "enum": list(route.versions)},
        }
    )
    is_list = "_List" in route.name
    if is_list and route.name not in _WHOLE:
        top = {"type": "integer", "minimum": 1, "maximum": 10**9 - 1}
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in (("$top", top), ("$skiptoken", {"type": "string", "pattern": "^[0-9]{0,18}$"}))
        ]
    found: Document = {
        "operationId": route.name,
        "description": f"Needs {route.action}.",
        "parameters": parameters,
        "responses": {"200": _json("The answer.", _ref("Page" if is_list else "Resource")), "default": _error()},
    }
    if route.is_patching:
        found["responses"] = {"202": {"description": "Follow Azure-AsyncOperation or Location."}, "default": _error()}
    elif route.is_poll:
        found["responses"]["202"] = {"description": "It has not ended; ask again after Retry-After seconds."}
    if route.method == "DELETE":
        found["responses"] = {
            "202": {"description": "Follow Azure-AsyncOperation or Location."},
            "204": {"description": "There is nothing to leave."},
            "default": _error(),
        }
    elif route.name.startswith("LicenseProfiles_") and route.is_write:
        begun = "201" if route.method == "PUT" else "202"
        found["responses"][begun] = {"description": "It has begun; follow Azure-AsyncOperation or Location."}
    if body := _body_of(route):
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return found


def _error() -> Document:
    return {"$ref": "#/components/responses/Error"}
