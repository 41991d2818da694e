import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Mail',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event_id', models.BigIntegerField()),
                ('kind', models.CharField(choices=[('rollout_paused', 'Rollout paused'), ('decision_waits', 'Update waits for a decision'), ('bulk_failed', 'Bulk request ended with failures')], max_length=20, verbose_name='kind')),
                ('object_id', models.CharField(max_length=64)),
                ('message_id', models.CharField(max_length=250, unique=True)),
                ('status', models.CharField(choices=[('waiting', 'Waits to be sent'), ('sent', 'Sent'), ('dropped', 'Not sent'), ('given_up', 'Given up')], default='waiting', max_length=10, verbose_name='state')),
                ('reason', models.CharField(blank=True, choices=[('answered', 'It was answered in the meantime.'), ('not_allowed', 'The person may not see it, or not answer it, any more.'), ('not_wanted', 'The person does not want such mail any more.'), ('refused', 'The mail server refuses this address or this mail for good.'), ('no_server', 'The mail server did not take it, however often it was tried.')], default='', max_length=20, verbose_name='why')),
                ('error', models.CharField(blank=True, default='', max_length=300, verbose_name='last error')),
                ('attempts', models.PositiveSmallIntegerField(default=0, verbose_name='attempts')),
                ('due_at', models.DateTimeField(blank=True, null=True, verbose_name='due at')),
                ('created_at', models.DateTimeField(verbose_name='created at')),
                ('ended_at', models.DateTimeField(blank=True, null=True, verbose_name='ended at')),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='person')),
            ],
            options={
                'verbose_name': 'mail',
                'verbose_name_plural': 'mails',
                'ordering': ['-created_at', '-pk'],
                'indexes': [models.Index(condition=models.Q(('status', 'waiting')), fields=['due_at'], name='notifications_mail_due'), models.Index(fields=['created_at'], name='notifications_mail_created')],
                'constraints': [models.UniqueConstraint(fields=('event_id', 'person'), name='notifications_mail_once'), models.CheckConstraint(condition=models.Q(models.Q(('due_at__isnull', False), ('ended_at__isnull', True), ('status', 'waiting')), models.Q(models.Q(('status', 'waiting'), _negated=True), ('due_at__isnull', True), ('ended_at__isnull', False)), _connector='OR'), name='notifications_mail_due_or_ended')],
            },
        ),
    ]
