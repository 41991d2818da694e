"""What people type about VMs, parsed and checked. Forms ask and judge; the views call what acts."""
