"""Waves of a rollout go in lanes, side by side; a rollout that is open keeps its one line of waves."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Bring in lanes, and put the waves of every rollout in one."""

    dependencies = [("updates", "0007_catch_up")]

    operations = [
        migrations.AddField("rollout", "is_availability_first", models.BooleanField(default=True)),
        migrations.AddField("rollout", "lanes", models.JSONField(default=list)),
        migrations.RunSQL(
            """
            UPDATE updates_rollout SET lanes = jsonb_build_array(jsonb_build_object(
                'phase', 0, 'first', 0, 'last', wave_count::int - 1, 'wave', wave, 'ended_at', NULL
            )) WHERE wave_count > 0
            """,
            migrations.RunSQL.noop,
        ),
        migrations.RemoveField("rollout", "wave_ended_at"),
    ]
