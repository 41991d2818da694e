"""The preferences get a room of their own: the table, its content type and permissions stay as they are."""

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def _rename(apps: Any, schema_editor: Any, before: str, after: str) -> None:
    types = apps.get_model("contenttypes", "ContentType").objects.using(schema_editor.connection.alias)
    if not types.filter(app_label=after, model="preferences").exists():
        types.filter(app_label=before, model="preferences").update(app_label=after)


def take_over(apps: Any, schema_editor: Any) -> None:
    """What refers to the content type (permissions that were given, the admin's log) goes on."""
    _rename(apps, schema_editor, "hotpatch_portal", "people")


def give_back(apps: Any, schema_editor: Any) -> None:
    """The other way round."""
    _rename(apps, schema_editor, "people", "hotpatch_portal")


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("hotpatch_portal", "0002_preferences"),
    ]
    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Preferences",
                    fields=[
                        ("user", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name="preferences", serialize=False, to=settings.AUTH_USER_MODEL)),
                        ("language", models.CharField(blank=True, max_length=10, verbose_name="language")),
                        ("time_zone", models.CharField(blank=True, max_length=60, verbose_name="time zone")),
                        ("theme", models.CharField(blank=True, max_length=10, verbose_name="theme")),
                        ("density", models.CharField(blank=True, max_length=10, verbose_name="density")),
                    ],
                    options={
                        "db_table": "hotpatch_portal_preferences",
                        "verbose_name": "preferences",
                        "verbose_name_plural": "preferences",
                    },
                ),
            ],
        ),
        migrations.RunPython(take_over, give_back),
    ]
