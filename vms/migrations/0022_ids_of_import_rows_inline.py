"""Keep the ids and names of rows that wait in the row itself: only facts and documents go out of line.

With them out of line, comparing the ids of a million rows fetched each one from the table of large values, and took minutes.
"""

from django.db import migrations

_COLUMNS = ("arm_id", "name", "detail")


def _storage(how: str) -> str:
    return "ALTER TABLE vms_importrow " + ", ".join(f"ALTER COLUMN {name} SET STORAGE {how}" for name in _COLUMNS)


class Migration(migrations.Migration):
    dependencies = [("vms", "0021_fleet_counters")]

    operations = [migrations.RunSQL(_storage("MAIN"), _storage("EXTENDED"))]
