"""The preferences belong to `people` now; nothing changes in the database."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("hotpatch_portal", "0002_preferences"), ("people", "0001_preferences")]
    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name="Preferences")]),
    ]
