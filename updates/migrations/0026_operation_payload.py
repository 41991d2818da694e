from django.db import migrations

# An assessment carries nothing: its column stays empty, and its row is not rewritten.
_WITH_VERSION = """
UPDATE updates_operation SET payload = jsonb_build_object('v', 1) || payload WHERE jsonb_typeof(payload) = 'object'
"""
_WITHOUT_VERSION = """
UPDATE updates_operation SET payload = payload - 'v' WHERE jsonb_typeof(payload) = 'object'
"""


class Migration(migrations.Migration):
    """What an operation carries has a version, and a name that is true of every kind."""

    dependencies = [("updates", "0025_names_of_columns")]

    operations = [
        migrations.RenameField("operation", "plan", "payload"),
        migrations.RunSQL(_WITH_VERSION, _WITHOUT_VERSION),
    ]
