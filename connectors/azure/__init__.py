"""Machines of Azure and of every cloud that speaks as Azure Resource Manager does, through Microsoft's SDKs (docs/azure.md)."""
