"""Every write of the updates floor that has a meaning."""
