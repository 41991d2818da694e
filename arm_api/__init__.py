"""The REST contract of Azure Resource Manager, answered by this portal (docs/azure-clients.md)."""
