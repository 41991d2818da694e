"""Floor 2: what we own: VMs, the image catalogue, connections, patch settings, role assignments."""
