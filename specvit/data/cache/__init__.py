"""Where decoded images are kept: arrays in memory, or files on disk that later runs and other workers map.

Of images that stay encoded ``folder_index`` keeps where they lie, and ``found_targets`` what their targets hold.

``load_cached`` finds or makes a cache on disk; sources write rows into a ``Storage``, whichever it is. Room is checked
before the first image is decoded, a cache appears under its name only when it is whole, and the numbers are the same
wherever they are kept.
"""

from specvit.data.cache.array_storage import DiskStorage, MemoryStorage, Rows, Storage
from specvit.data.cache.decoded_cache import load_cached

__all__ = ["DiskStorage", "MemoryStorage", "Rows", "Storage", "load_cached"]
