"""A row a day for what was counted of the fleet; what each machine lacks is told to the floor below, which counts it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

TOLD = """
UPDATE vms_virtualmachine v SET patch_set = s.patch_set_id
FROM updates_vmupdatestate s WHERE s.vm_id = v.id AND s.patch_set_id IS NOT NULL
"""


class Migration(migrations.Migration):

    dependencies = [
        ('updates', '0027_operation_payload_and_priority'),
        ('vms', '0021_fleet_counters'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='FleetSnapshot',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('product_line', models.CharField(blank=True, max_length=20)),
                ('up_to_date', models.PositiveIntegerField()),
                ('other', models.PositiveIntegerField()),
                ('critical', models.PositiveIntegerField()),
                ('no_data', models.PositiveIntegerField()),
                ('critical_late', models.PositiveIntegerField()),
                ('on_track', models.PositiveIntegerField()),
            ],
            options={
                'verbose_name': 'snapshot of the fleet',
                'verbose_name_plural': 'snapshots of the fleet',
            },
        ),
        migrations.AddIndex(
            model_name='operation',
            index=models.Index(condition=models.Q(models.Q(('kind', 'assessment'), _negated=True), models.Q(('state', 'failed'), ('verification', 'contradicted'), _connector='OR')), fields=['-finished_at'], include=('vm', 'error_code'), name='updates_operation_trouble'),
        ),
        migrations.AddField(
            model_name='fleetsnapshot',
            name='connection',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='vms.connection'),
        ),
        migrations.AddField(
            model_name='fleetsnapshot',
            name='resource_group',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='vms.resourcegroup'),
        ),
        migrations.AddIndex(
            model_name='fleetsnapshot',
            index=models.Index(fields=['day'], name='updates_snapshot_day'),
        ),
        migrations.AddConstraint(
            model_name='fleetsnapshot',
            constraint=models.UniqueConstraint(fields=('resource_group', 'day', 'connection', 'product_line'), name='updates_snapshot_unique', nulls_distinct=False),
        ),
        migrations.RunSQL(TOLD, migrations.RunSQL.noop),
    ]
