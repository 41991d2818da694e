from django.db import migrations, models


class Migration(migrations.Migration):
    """When each worker was last heard of."""

    dependencies = [
        ('updates', '0019_ready_for_hotpatches'),
    ]

    operations = [
        migrations.CreateModel(
            name='WorkerHeartbeat',
            fields=[
                ('name', models.CharField(max_length=200, primary_key=True, serialize=False, verbose_name='name')),
                ('heard_at', models.DateTimeField(verbose_name='heard of at')),
            ],
            options={
                'verbose_name': 'worker heartbeat',
                'verbose_name_plural': 'worker heartbeats',
            },
        ),
    ]
