"""Every write with a meaning on what we own."""
