import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('people', '0002_audit'),
    ]

    operations = [
        migrations.CreateModel(
            name='MailWishes',
            fields=[
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='mail_wishes', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('address', models.EmailField(blank=True, max_length=254, verbose_name='mail address')),
                ('rollouts', models.BooleanField(default=False, verbose_name='a rollout that I may resume is paused')),
                ('decisions', models.BooleanField(default=False, verbose_name='an update waits for a decision that I may take')),
                ('bulk_requests', models.BooleanField(default=False, verbose_name='a bulk request of mine ended with failures')),
            ],
            options={
                'verbose_name': 'wishes for mail',
                'verbose_name_plural': 'wishes for mail',
            },
        ),
    ]
