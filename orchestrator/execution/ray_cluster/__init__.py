"""The executor on Ray. The only import of ray."""

import os

# Ray reads this when it is imported: no calls home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
