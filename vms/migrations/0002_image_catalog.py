"""The image catalogue to start with: the Azure Edition images that support hotpatching. Administrators edit it later."""

from typing import Any

from django.db import migrations

PUBLISHER = "MicrosoftWindowsServer"
OFFER = "WindowsServer"

# SKU, product line, Server Core. On Core images hotpatch is on by default; on the others it is offered.
IMAGES = [
    ("2022-datacenter-azure-edition-core", "ws2022", True),
    ("2022-datacenter-azure-edition-core-smalldisk", "ws2022", True),
    ("2022-datacenter-azure-edition-hotpatch", "ws2022", False),
    ("2022-datacenter-azure-edition-hotpatch-smalldisk", "ws2022", False),
    ("2025-datacenter-azure-edition", "ws2025", False),
    ("2025-datacenter-azure-edition-smalldisk", "ws2025", False),
    ("2025-datacenter-azure-edition-core", "ws2025", True),
    ("2025-datacenter-azure-edition-core-smalldisk", "ws2025", True),
]


def add_images(apps: Any, _schema_editor: object) -> None:
    entry = apps.get_model("vms", "ImageCatalogEntry")
    entry.objects.bulk_create(
        [
            entry(
                publisher=PUBLISHER,
                offer=OFFER,
                sku=sku,
                product_line=product_line,
                is_server_core=is_server_core,
                has_hotpatch_by_default=is_server_core,
            )
            for sku, product_line, is_server_core in IMAGES
        ],
        ignore_conflicts=True,
    )


class Migration(migrations.Migration):
    dependencies = [("vms", "0001_initial")]

    # Going back keeps the entries: they may have been edited, and dropping the table takes them anyway.
    operations = [migrations.RunPython(add_images, migrations.RunPython.noop)]
