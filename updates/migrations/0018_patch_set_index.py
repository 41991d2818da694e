from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Which VMs point at a patch set; built while assessments go on."""

    atomic = False

    dependencies = [
        ('updates', '0017_words_clock'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='vmupdatestate',
            index=models.Index(fields=['patch_set'], name='updates_state_patch_set'),
        ),
    ]
