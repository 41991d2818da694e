"""A bulk request keeps the machines that it means, in blocks; those from before the upgrade get theirs."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

# Those that were answered stand in the answers, those that were ticked in the request. What matched filters was judged again
# at every block and kept nowhere: such a request ends here, and says so, instead of taking machines that nobody saw.
_FILL = """
INSERT INTO updates_bulkblock (request_id, number, vm_ids)
SELECT request_id, (place - 1) / 2000, array_agg(vm_id ORDER BY place)
FROM (
    SELECT request_id, vm_id, row_number() OVER (PARTITION BY request_id ORDER BY vm_id) AS place FROM updates_bulkoutcome
) o GROUP BY 1, 2;
CREATE TEMPORARY TABLE bulk_waiting ON COMMIT DROP AS
SELECT r.id, r.cursor, (SELECT count(*) FROM updates_bulkblock b WHERE b.request_id = r.id) AS blocks
FROM updates_bulkrequest r WHERE NOT r.is_handed_out;
INSERT INTO updates_bulkblock (request_id, number, vm_ids)
SELECT id, blocks + (place - 1) / 2000, array_agg(vm_id ORDER BY place)
FROM (
    SELECT t.id, t.blocks, t.vm_id, row_number() OVER (PARTITION BY t.id ORDER BY t.vm_id) AS place
    FROM (
        SELECT DISTINCT w.id, w.blocks, w.cursor, CASE WHEN e.value ~ '^[0-9]{1,18}$' THEN e.value::bigint END AS vm_id
        FROM bulk_waiting w JOIN updates_bulkrequest r ON r.id = w.id
        CROSS JOIN LATERAL jsonb_array_elements_text(
            CASE WHEN jsonb_typeof(r.selection -> 'vm') = 'array' THEN r.selection -> 'vm' END
        ) AS e(value)
    ) t WHERE t.vm_id > t.cursor
) n GROUP BY 1, 2;
UPDATE updates_bulkrequest r
SET cursor = w.blocks, is_handed_out = NOT EXISTS (
        SELECT FROM updates_bulkblock b WHERE b.request_id = r.id AND b.number >= w.blocks
    ), error_code = CASE WHEN NOT r.selection ? 'vm' THEN 'bulk.outdated' ELSE r.error_code END
FROM bulk_waiting w WHERE w.id = r.id;
UPDATE updates_bulkrequest r
SET vm_count = b.vms FROM (SELECT request_id, sum(cardinality(vm_ids)) AS vms FROM updates_bulkblock GROUP BY 1) b
WHERE b.request_id = r.id;
UPDATE updates_rollout r
SET vm_count = m.vms FROM (SELECT rollout_id, count(*) AS vms FROM updates_rolloutmember GROUP BY 1) m
WHERE m.rollout_id = r.id;
DROP TABLE bulk_waiting;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('updates', '0015_catalogue_identity'),
    ]

    operations = [
        migrations.AddField(
            model_name='bulkrequest',
            name='removed_count',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='bulkrequest',
            name='vm_count',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='rollout',
            name='vm_count',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.CreateModel(
            name='BulkBlock',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('vm_ids', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('request', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='blocks', to='updates.bulkrequest')),
            ],
            options={
                'verbose_name': 'bulk block',
                'verbose_name_plural': 'bulk blocks',
                'constraints': [models.UniqueConstraint(fields=('request', 'number'), name='updates_bulkblock_unique')],
            },
        ),
        migrations.RunSQL(sql=_FILL, reverse_sql=migrations.RunSQL.noop),
    ]
