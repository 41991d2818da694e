"""Floor 1: how we speak to machines (no Django, no models)."""

from connectors.registry import connector_for

__all__ = ["connector_for"]
