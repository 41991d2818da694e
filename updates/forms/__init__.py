"""What people ask of VMs, parsed and checked. Forms ask and judge; the views call what acts."""
