"""The demo fleet, each of whose VMs tells a story, and the tour of them. The portal runs without it."""
