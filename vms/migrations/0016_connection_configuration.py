import math
from datetime import date

from django.db import migrations, models

import vms.choices


def move_into_config(apps, _schema_editor):
    """What a simulator is made from stood in columns of its own; now it stands in `config`, as for every other kind."""
    for row in apps.get_model("vms", "Connection").objects.filter(kind="simulator"):
        day = row.catalogue_date
        row.config = {
            "catalogue_date": day.isoformat() if day else None,
            "clock_factor": row.clock_factor,
            "seed": row.seed,
        }
        row.save(update_fields=["config"])


def move_back(apps, _schema_editor):
    """A value that the columns cannot hold (nobody can save one in a page) becomes the column's default."""
    for row in apps.get_model("vms", "Connection").objects.filter(kind="simulator"):
        config = row.config if isinstance(row.config, dict) else {}
        day, factor, seed = (config.get(name) for name in ("catalogue_date", "clock_factor", "seed"))
        try:
            row.catalogue_date = min(date.fromisoformat(day), date(2100, 12, 31))
        except (TypeError, ValueError):
            row.catalogue_date = None
        is_number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        row.clock_factor = factor if is_number and 0 < factor < math.inf else 60.0
        row.seed = seed if isinstance(seed, int) and 0 <= seed < 2**31 else 1
        row.save(update_fields=["catalogue_date", "clock_factor", "seed"])


class Migration(migrations.Migration):
    dependencies = [("vms", "0015_misfortune_tag_without_case")]

    operations = [
        migrations.AddField(
            model_name="connection",
            name="config",
            field=models.JSONField(blank=True, default=dict, verbose_name="configuration"),
        ),
        migrations.RunPython(move_into_config, move_back),
        migrations.RemoveConstraint(model_name="connection", name="vms_connection_catalogue_date_not_beyond_2100"),
        migrations.RemoveConstraint(model_name="connection", name="vms_connection_clock_factor_positive"),
        migrations.RemoveField(model_name="connection", name="catalogue_date"),
        migrations.RemoveField(model_name="connection", name="clock_factor"),
        migrations.RemoveField(model_name="connection", name="seed"),
        migrations.AlterField(
            model_name="connection",
            name="kind",
            field=models.CharField(choices=vms.choices.connection_kinds, max_length=20, verbose_name="kind"),
        ),
    ]
