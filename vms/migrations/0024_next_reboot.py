"""The next reboot of each machine. The numbers of the kinds of machines are computed here (the table is rewritten once);

the words follow with the first tick after the upgrade, in blocks: until then a machine says nothing of its next reboot.
"""

import django.db.models.functions.comparison
import django.db.models.functions.text
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('vms', '0023_views_needs_and_columns'),
    ]

    operations = [
        migrations.CreateModel(
            name='Outlook',
            fields=[
                ('alike', models.BigIntegerField(primary_key=True, serialize=False)),
                ('next_reboot', models.CharField(max_length=10)),
                ('next_reboot_outlook', models.CharField(choices=[('will', 'Will reboot'), ('may', 'May reboot'), ('will_not', 'Will not reboot'), ('not_known', 'Not known')], max_length=10)),
                ('next_reboot_cause', models.CharField(blank=True, max_length=30)),
                ('is_told', models.BooleanField(default=False)),
                ('settles_at', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name': 'outlook of machines',
                'verbose_name_plural': 'outlooks of machines',
            },
        ),
        migrations.RemoveIndex(
            model_name='virtualmachine',
            name='vms_vm_group_name',
        ),
        migrations.AddField(
            model_name='virtualmachine',
            name='alike',
            field=models.GeneratedField(db_persist=True, expression=models.Func(django.db.models.functions.text.Concat(django.db.models.functions.comparison.Cast('connection', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('product_line', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('hotpatch_track', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('is_reboot_pending', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('patcher', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('reboot_setting', models.TextField()), models.Value('|'), django.db.models.functions.comparison.Cast('patch_set', models.TextField()), output_field=models.TextField()), models.Value(0), function='hashtextextended', output_field=models.BigIntegerField()), output_field=models.BigIntegerField()),
        ),
        migrations.AddField(
            model_name='virtualmachine',
            name='next_reboot',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=10, verbose_name='next reboot'),
        ),
        migrations.AddField(
            model_name='virtualmachine',
            name='next_reboot_cause',
            field=models.CharField(blank=True, db_default='', default='', editable=False, max_length=30, verbose_name='why it reboots'),
        ),
        migrations.AddField(
            model_name='virtualmachine',
            name='next_reboot_outlook',
            field=models.CharField(blank=True, choices=[('will', 'Will reboot'), ('may', 'May reboot'), ('will_not', 'Will not reboot'), ('not_known', 'Not known')], db_default='', default='', editable=False, max_length=10, verbose_name='whether it reboots'),
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(fields=['resource_group', 'name', 'id'], include=('connection', 'location', 'power_state', 'patcher', 'product_line', 'update_status', 'hotpatch_status', 'hotpatch_track', 'gone_at', 'alike'), name='vms_vm_group_name'),
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(fields=['next_reboot', 'name', 'id'], name='vms_vm_reboot_name'),
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(fields=['alike'], name='vms_vm_alike'),
        ),
        migrations.AddIndex(
            model_name='virtualmachine',
            index=models.Index(condition=models.Q(('gone_at__isnull', True), ('next_reboot', '')), fields=['id'], name='vms_vm_reboot_untold'),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='virtualmachine',
            trigger=pgtrigger.compiler.Trigger(name='reboot_added', sql=pgtrigger.compiler.UpsertTriggerSql(func="SELECT next_reboot, next_reboot_outlook, next_reboot_cause INTO NEW.next_reboot, NEW.next_reboot_outlook, NEW.next_reboot_cause FROM vms_outlook WHERE alike = hashtextextended(NEW.connection_id::text || '|' || NEW.product_line::text || '|' || NEW.hotpatch_track::text || '|' || NEW.is_reboot_pending::text || '|' || NEW.patcher::text || '|' || NEW.reboot_setting::text || '|' || NEW.patch_set::text, 0) AND NEW.gone_at IS NULL; IF NOT FOUND THEN NEW.next_reboot := ''; NEW.next_reboot_outlook := ''; NEW.next_reboot_cause := ''; END IF; RETURN NEW;", hash='0eae641ea79f26d5b7e097b66207978aa4c4f3b9', operation='INSERT', pgid='pgtrigger_reboot_added_0616a', table='vms_virtualmachine', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='virtualmachine',
            trigger=pgtrigger.compiler.Trigger(name='reboot_moved', sql=pgtrigger.compiler.UpsertTriggerSql(condition='WHEN (OLD."connection_id" IS DISTINCT FROM (NEW."connection_id") OR OLD."gone_at" IS DISTINCT FROM (NEW."gone_at") OR OLD."hotpatch_track" IS DISTINCT FROM (NEW."hotpatch_track") OR OLD."is_reboot_pending" IS DISTINCT FROM (NEW."is_reboot_pending") OR OLD."next_reboot" IS DISTINCT FROM (NEW."next_reboot") OR OLD."next_reboot_cause" IS DISTINCT FROM (NEW."next_reboot_cause") OR OLD."next_reboot_outlook" IS DISTINCT FROM (NEW."next_reboot_outlook") OR OLD."patch_set" IS DISTINCT FROM (NEW."patch_set") OR OLD."patcher" IS DISTINCT FROM (NEW."patcher") OR OLD."product_line" IS DISTINCT FROM (NEW."product_line") OR OLD."reboot_setting" IS DISTINCT FROM (NEW."reboot_setting"))', func="SELECT next_reboot, next_reboot_outlook, next_reboot_cause INTO NEW.next_reboot, NEW.next_reboot_outlook, NEW.next_reboot_cause FROM vms_outlook WHERE alike = hashtextextended(NEW.connection_id::text || '|' || NEW.product_line::text || '|' || NEW.hotpatch_track::text || '|' || NEW.is_reboot_pending::text || '|' || NEW.patcher::text || '|' || NEW.reboot_setting::text || '|' || NEW.patch_set::text, 0) AND NEW.gone_at IS NULL; IF NOT FOUND THEN NEW.next_reboot := ''; NEW.next_reboot_outlook := ''; NEW.next_reboot_cause := ''; END IF; RETURN NEW;", hash='2b14fa909eae8bc5644b2e016016f889e66ae47c', operation='UPDATE', pgid='pgtrigger_reboot_moved_ef0bd', table='vms_virtualmachine', when='BEFORE')),
        ),
    ]
