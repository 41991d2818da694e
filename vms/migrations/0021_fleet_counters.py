"""Counters tell more words apart, and what machines lack; the whole fleet has totals of its own. Counted anew."""

import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

PLACES = """
INSERT INTO vms_wordcount (resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track,
                           lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, machines, is_total)
SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track,
       critical_and_security_count > 0, is_reboot_pending, patcher, reboot_setting, patch_set, count(*), true
FROM vms_virtualmachine WHERE gone_at IS NULL GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
"""
FLEET = """
INSERT INTO vms_fleetcount (connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical,
                            is_reboot_pending, patcher, reboot_setting, patch_set, machines)
SELECT connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending,
       patcher, reboot_setting, patch_set, sum(machines)
FROM vms_wordcount GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""
FEWER_WORDS = """
INSERT INTO vms_wordcount (resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track,
                           machines, is_total)
SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, count(*), true
FROM vms_virtualmachine WHERE gone_at IS NULL GROUP BY 1, 2, 3, 4, 5, 6
"""
EMPTY = "DELETE FROM vms_wordcount"


class Migration(migrations.Migration):

    dependencies = [
        ('vms', '0020_gone_machines'),
    ]

    operations = [
        migrations.CreateModel(
            name='FleetCount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('product_line', models.CharField(blank=True, choices=[('ws2022', 'Windows Server 2022 Datacenter: Azure Edition'), ('ws2025', 'Windows Server 2025')], max_length=20)),
                ('update_status', models.CharField(choices=[('no_updates_available', 'No updates available'), ('updates_available', 'Updates available'), ('reboot_required', 'Reboot required'), ('no_updates_data', 'No updates data'), ('unsupported', 'Unsupported')], max_length=30)),
                ('hotpatch_status', models.CharField(choices=[('Enabled', 'Enabled'), ('Disabled', 'Disabled'), ('NotAvailable', 'Not available'), ('PendingEvaluation', 'Pending evaluation')], max_length=30)),
                ('hotpatch_track', models.CharField(choices=[('on_track', 'On track'), ('on_track_as_far_as_known', 'On track as far as known'), ('baseline_due', 'Baseline due'), ('baseline_overdue', 'Baseline overdue'), ('waits_for_reboot', 'Baseline waits for its reboot'), ('off_track_since_kb', 'Off track'), ('not_on_train', 'Not on the train'), ('newer_than_catalogue', 'Newer than the catalog'), ('unknown', 'Unknown')], max_length=40)),
                ('lacks_critical', models.BooleanField()),
                ('is_reboot_pending', models.BooleanField()),
                ('patcher', models.CharField(choices=[('nobody', 'Nobody'), ('guest_os', 'Windows itself'), ('platform', 'Azure, automatically'), ('portal_automatically', 'This portal, automatically'), ('portal_by_schedule', 'This portal, by schedule')], max_length=30)),
                ('reboot_setting', models.CharField(choices=[('IfRequired', 'Reboot if required'), ('Never', 'Never reboot'), ('Always', 'Always reboot')], max_length=20)),
                ('patch_set', models.BigIntegerField()),
                ('machines', models.IntegerField()),
            ],
            options={
                'verbose_name': 'counter of the fleet',
                'verbose_name_plural': 'counters of the fleet',
            },
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='virtualmachine',
            name='words_added',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='virtualmachine',
            name='words_moved',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='virtualmachine',
            name='words_removed',
        ),
        migrations.RemoveIndex(
            model_name='virtualmachine',
            name='vms_vm_group_name',
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(fields=['resource_group', 'name', 'id'], include=('connection', 'location', 'power_state', 'patcher', 'product_line', 'update_status', 'hotpatch_status', 'hotpatch_track', 'gone_at'), name='vms_vm_group_name'),
        ),
        migrations.RunSQL(EMPTY, FEWER_WORDS),
        migrations.RemoveConstraint(
            model_name='wordcount',
            name='vms_wordcount_unique_total',
        ),
        migrations.AddField(
            model_name='virtualmachine',
            name='patch_set',
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.AddField(
            model_name='wordcount',
            name='is_reboot_pending',
            field=models.BooleanField(default=False),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='wordcount',
            name='lacks_critical',
            field=models.BooleanField(default=False),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='wordcount',
            name='patch_set',
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='wordcount',
            name='patcher',
            field=models.CharField(choices=[('nobody', 'Nobody'), ('guest_os', 'Windows itself'), ('platform', 'Azure, automatically'), ('portal_automatically', 'This portal, automatically'), ('portal_by_schedule', 'This portal, by schedule')], default='', max_length=30),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='wordcount',
            name='reboot_setting',
            field=models.CharField(choices=[('IfRequired', 'Reboot if required'), ('Never', 'Never reboot'), ('Always', 'Always reboot')], default='', max_length=20),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name='wordcount',
            name='connection',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='vms.connection'),
        ),
        migrations.AlterField(
            model_name='wordcount',
            name='resource_group',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='vms.resourcegroup'),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='virtualmachine',
            trigger=pgtrigger.compiler.Trigger(name='words_added', sql=pgtrigger.compiler.UpsertTriggerSql(func='INSERT INTO vms_wordcount (resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, machines, is_total) SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, sum(machines), false FROM (SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, critical_and_security_count > 0 AS lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, 1 AS machines FROM added WHERE gone_at IS NULL) changed GROUP BY resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set HAVING sum(machines) <> 0; RETURN NULL;', hash='4681bb1882e35b9c4056ad0f466357a6f1f19669', level='STATEMENT', operation='INSERT', pgid='pgtrigger_words_added_59474', referencing='REFERENCING NEW TABLE AS added ', table='vms_virtualmachine', when='AFTER')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='virtualmachine',
            trigger=pgtrigger.compiler.Trigger(name='words_moved', sql=pgtrigger.compiler.UpsertTriggerSql(func='INSERT INTO vms_wordcount (resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, machines, is_total) SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, sum(machines), false FROM (SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, critical_and_security_count > 0 AS lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, 1 AS machines FROM added WHERE gone_at IS NULL UNION ALL SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, critical_and_security_count > 0 AS lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, -1 FROM gone WHERE gone_at IS NULL) changed GROUP BY resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set HAVING sum(machines) <> 0; RETURN NULL;', hash='1437f48d9e6052778cd37c1c0503d473dc59b897', level='STATEMENT', operation='UPDATE', pgid='pgtrigger_words_moved_6ad21', referencing='REFERENCING OLD TABLE AS gone  NEW TABLE AS added ', table='vms_virtualmachine', when='AFTER')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='virtualmachine',
            trigger=pgtrigger.compiler.Trigger(name='words_removed', sql=pgtrigger.compiler.UpsertTriggerSql(func='INSERT INTO vms_wordcount (resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, machines, is_total) SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, sum(machines), false FROM (SELECT resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, critical_and_security_count > 0 AS lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set, -1 AS machines FROM gone WHERE gone_at IS NULL) changed GROUP BY resource_group_id, connection_id, product_line, update_status, hotpatch_status, hotpatch_track, lacks_critical, is_reboot_pending, patcher, reboot_setting, patch_set HAVING sum(machines) <> 0; RETURN NULL;', hash='ce0fe2803095a607f28f8962cf6c35e2d6785164', level='STATEMENT', operation='DELETE', pgid='pgtrigger_words_removed_46d75', referencing='REFERENCING OLD TABLE AS gone ', table='vms_virtualmachine', when='AFTER')),
        ),
        migrations.AddConstraint(
            model_name='wordcount',
            constraint=models.UniqueConstraint(condition=models.Q(('is_total', True)), fields=('resource_group', 'connection', 'product_line', 'update_status', 'hotpatch_status', 'hotpatch_track', 'lacks_critical', 'is_reboot_pending', 'patcher', 'reboot_setting', 'patch_set'), name='vms_wordcount_unique_total'),
        ),
        migrations.AddField(
            model_name='fleetcount',
            name='connection',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='vms.connection'),
        ),
        migrations.AddConstraint(
            model_name='fleetcount',
            constraint=models.UniqueConstraint(fields=('connection', 'product_line', 'update_status', 'hotpatch_status', 'hotpatch_track', 'lacks_critical', 'is_reboot_pending', 'patcher', 'reboot_setting', 'patch_set'), name='vms_fleetcount_unique'),
        ),
        migrations.RunSQL([PLACES, FLEET], EMPTY),
    ]
