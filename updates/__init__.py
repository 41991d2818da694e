"""Floor 3: what we do to VMs: patches, releases, assessments, installations, history, compliance."""
