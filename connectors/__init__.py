"""Floor 1: how we speak to machines (no Django, no models)."""
