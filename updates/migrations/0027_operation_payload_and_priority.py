from django.db import migrations, models

# An assessment carries nothing: its column stays empty, and its row is not rewritten.
_WITH_VERSION = """
UPDATE updates_operation SET payload = jsonb_build_object('v', 1) || payload WHERE jsonb_typeof(payload) = 'object'
"""
_WITHOUT_VERSION = """
UPDATE updates_operation SET payload = payload - 'v' WHERE jsonb_typeof(payload) = 'object'
"""
_IN_FLIGHT = ["in_progress", "rebooting", "starting"]


class Migration(migrations.Migration):
    """What an operation carries has a version, and a name that is true of every kind; whose turn it is is its priority."""

    dependencies = [("updates", "0026_assessment_source")]

    operations = [
        migrations.RenameField("operation", "plan", "payload"),
        migrations.RenameField("operation", "lane", "priority"),
        migrations.AlterField(
            "operation",
            "priority",
            models.PositiveSmallIntegerField(choices=[(0, "Interactive"), (1, "Observe"), (2, "Bulk")], default=0),
        ),
        # PostgreSQL renames the column in its indexes by itself: none is built again.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex("operation", "updates_operation_queued"),
                migrations.RemoveIndex("operation", "updates_operation_in_flight"),
                migrations.AddIndex(
                    "operation",
                    models.Index(
                        condition=models.Q(("state", "queued")),
                        fields=["connection", "bucket", "priority", "next_step_at"],
                        name="updates_operation_queued",
                    ),
                ),
                migrations.AddIndex(
                    "operation",
                    models.Index(
                        condition=models.Q(("state__in", _IN_FLIGHT)),
                        fields=["connection", "priority", "next_step_at"],
                        name="updates_operation_in_flight",
                    ),
                ),
            ]
        ),
        migrations.RunSQL(_WITH_VERSION, _WITHOUT_VERSION),
    ]
