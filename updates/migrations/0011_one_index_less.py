"""The history's index begins with the VM, so an index of the VM alone is not needed."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("updates", "0010_member_probes"),
        ("vms", "0009_health_probe"),
    ]

    operations = [
        # By name: AlterField would drop the partial unique index of the same column with it.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    sql="DROP INDEX IF EXISTS updates_operation_vm_id_ca543b5e",
                    reverse_sql="CREATE INDEX updates_operation_vm_id_ca543b5e ON updates_operation (vm_id)",
                )
            ],
            state_operations=[
                migrations.AlterField(
                    model_name="operation",
                    name="vm",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="operations",
                        to="vms.virtualmachine",
                        verbose_name="virtual machine",
                    ),
                )
            ],
        )
    ]
