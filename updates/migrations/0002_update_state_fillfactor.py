"""Half-empty pages: an assessment rewrites its row in place, without touching an index."""

from django.db import migrations


class Migration(migrations.Migration):
    """Set the fillfactor of the narrow, busy table."""

    dependencies = [("updates", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE updates_vmupdatestate SET (fillfactor = 50)",
            "ALTER TABLE updates_vmupdatestate RESET (fillfactor)",
        ),
    ]
