"""The api-versions that this door answers, by resource provider.

Those of the Azure CLI 2.91, the SDKs 34 to 39, Microsoft's documentation and the first ones that had these operations.
"""

from __future__ import annotations

COMPUTE = (
    *("2020-06-01", "2020-12-01", "2021-03-01", "2021-04-01", "2021-07-01", "2021-11-01", "2022-03-01", "2022-08-01"),
    *("2022-11-01", "2023-03-01", "2023-07-01", "2023-09-01", "2024-03-01", "2024-07-01", "2024-11-01", "2025-04-01"),
    *("2025-11-01", "2026-03-01", "2026-04-01"),
)
HYBRID_COMPUTE = (
    *("2022-12-27", "2023-10-03-preview", "2024-05-20-preview", "2024-07-10", "2024-11-10-preview", "2025-01-13"),
    "2026-07-15",
)
LICENSES = HYBRID_COMPUTE[1:]  # before, licences had no features
NETWORK = ("2020-11-01", "2022-01-01", "2023-09-01", "2024-05-01")
RESOURCES = (
    *("2016-06-01", "2018-05-01", "2019-05-01", "2019-06-01", "2019-07-01", "2019-10-01", "2019-11-01", "2020-01-01"),
    *("2020-06-01", "2020-10-01", "2021-01-01", "2021-04-01", "2022-01-01", "2022-09-01", "2022-12-01", "2023-07-01"),
    *("2024-03-01", "2024-07-01", "2024-11-01", "2025-04-01"),
)
AUTHORIZATION = ("2015-07-01", "2018-07-01", "2022-04-01")
GRAPH = ("2018-09-01-preview", "2019-04-01", "2020-04-01-preview", "2021-03-01", "2022-10-01", "2024-04-01")
# From this version on, plans may select updates by masks of their names.
NAME_MASKS_SINCE = "2025-04-01"
