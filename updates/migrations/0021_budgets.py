"""Budgets by bucket in place of one for each connection; what connections still had is kept."""

import django.db.models.deletion
from django.db import migrations, models

KEEP = """
INSERT INTO updates_bucket (connection_id, name, tokens, refilled_at)
SELECT connection_id, '', tokens, refilled_at FROM updates_connectionbudget
"""
GIVE_BACK = """
INSERT INTO updates_connectionbudget (connection_id, tokens, refilled_at)
SELECT connection_id, tokens, refilled_at FROM updates_bucket WHERE name = ''
"""


class Migration(migrations.Migration):
    dependencies = [
        ("updates", "0020_claims_by_connection"),
        ("vms", "0016_connection_configuration"),
    ]

    operations = [
        migrations.CreateModel(
            name="Bucket",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(blank=True, max_length=100, verbose_name="name")),
                ("rate_per_minute", models.FloatField(null=True)),
                ("burst", models.FloatField(null=True)),
                ("tokens", models.FloatField(default=0)),
                ("refilled_at", models.DateTimeField()),
                ("remaining", models.PositiveIntegerField(null=True)),
                ("told_at", models.DateTimeField(null=True)),
                ("not_before", models.DateTimeField(null=True)),
                (
                    "connection",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="buckets",
                        to="vms.connection",
                    ),
                ),
            ],
            options={"verbose_name": "budget", "verbose_name_plural": "budgets"},
        ),
        migrations.AddConstraint(
            model_name="bucket",
            constraint=models.UniqueConstraint(fields=("connection", "name"), name="updates_bucket_unique"),
        ),
        migrations.RunSQL(KEEP, GIVE_BACK),
        migrations.DeleteModel(name="ConnectionBudget"),
        migrations.AddField(
            model_name="operation",
            name="bucket",
            field=models.CharField(blank=True, db_default="", default="", max_length=100),
        ),
        migrations.RemoveIndex(model_name="operation", name="updates_operation_queued"),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(
                condition=models.Q(("state", "queued")),
                fields=["connection", "bucket", "lane", "next_step_at"],
                name="updates_operation_queued",
            ),
        ),
    ]
