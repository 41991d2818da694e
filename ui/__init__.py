"""Floor 1: what every page needs (no models)."""
