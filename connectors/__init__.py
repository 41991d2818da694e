"""Floor 1: how we speak to machines (no Django, no models)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.catalogue import Catalogue
    from connectors.protocol import Connector

# kind -> dotted path of its factory `(conf, catalogue) -> Connector`, imported on first use
CONNECTORS = {"simulator": "connectors.simulator.make"}


def connector_for(kind: str, conf: Mapping[str, object], *, catalogue: Catalogue) -> Connector:
    """The connector of this kind with this configuration. Raises ValueError if either is not understood."""
    if kind not in CONNECTORS:
        raise ValueError(f"There is no connector of the kind {kind!r}.")
    module, _, factory = CONNECTORS[kind].rpartition(".")
    connector: Connector = getattr(import_module(module), factory)(conf, catalogue)
    return connector
