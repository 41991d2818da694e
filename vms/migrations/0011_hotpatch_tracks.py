"""The words of the hotpatch track; "baseline missed" was never true: such a VM is overdue."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def rename(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Until its next assessment a VM that had missed the baseline is one whose baseline is overdue."""
    vms = apps.get_model("vms", "VirtualMachine")
    vms.objects.using(schema_editor.connection.alias).filter(hotpatch_track="off_track_baseline_missed").update(
        hotpatch_track="baseline_overdue"
    )


class Migration(migrations.Migration):
    dependencies = [("vms", "0010_group_index_covers_filters")]

    operations = [
        migrations.AlterField(
            model_name="virtualmachine",
            name="hotpatch_track",
            field=models.CharField(
                choices=[
                    ("on_track", "On track"),
                    ("on_track_as_far_as_known", "On track as far as known"),
                    ("baseline_due", "Baseline due"),
                    ("baseline_overdue", "Baseline overdue"),
                    ("waits_for_reboot", "Baseline waits for its reboot"),
                    ("off_track_since_kb", "Off track"),
                    ("not_on_train", "Not on the train"),
                    ("newer_than_catalogue", "Newer than the catalog"),
                    ("unknown", "Unknown"),
                ],
                default="unknown",
                max_length=40,
                verbose_name="hotpatch track",
            ),
        ),
        migrations.RunPython(rename, migrations.RunPython.noop),
    ]
