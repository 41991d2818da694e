"""An index that says which connections a group has machines behind; it begins with the group, as the one before did."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('vms', '0011_inventory_facts'),
    ]

    operations = [
        migrations.AlterField(
            model_name='virtualmachine',
            name='resource_group',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='vms', to='vms.resourcegroup', verbose_name='resource group'),
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(fields=['resource_group', 'connection'], name='vms_vm_group_connection'),
        ),
    ]
