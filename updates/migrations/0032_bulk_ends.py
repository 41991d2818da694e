"""When bulk requests ended; those of more than a week ago have ended whenever it was, and wait for nobody."""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('updates', '0031_restarts'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='bulkrequest',
            name='failed_count',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='bulkrequest',
            name='finished_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='finished at'),
        ),
        migrations.AddField(
            model_name='bulkrequest',
            name='seen_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunSQL(
            "UPDATE updates_bulkrequest SET finished_at = created_at"
            " WHERE is_handed_out AND created_at < clock_timestamp() - interval '7 days'",
            migrations.RunSQL.noop,
        ),
        migrations.AddIndex(
            model_name='bulkrequest',
            index=models.Index(condition=models.Q(('finished_at', None)), fields=['id'], name='updates_bulkrequest_unended'),
        ),
        migrations.AddIndex(
            model_name='bulkrequest',
            index=models.Index(condition=models.Q(('finished_at__isnull', False), ('seen_at', None)), fields=['requested_by', 'finished_at'], name='updates_bulkrequest_unseen'),
        ),
        migrations.AddIndex(
            model_name='rollout',
            index=models.Index(condition=models.Q(('status', 'paused')), fields=['created_by', 'created_at'], name='updates_rollout_paused'),
        ),
    ]
