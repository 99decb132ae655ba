"""Images and their targets: data sources by name, and what they deliver.

``DATA_SOURCES`` lists the sources, ``AnyDataSource`` is what the ``data`` section of a sweep file may hold; ``load`` of
a source returns a ``Dataset`` of two ``Split``s. Their images are arrays, decoded once and shared by all trials of a
node, or ``encoded``, decoded when they are needed. Nothing here imports torch; what needs an extra package lies in
``extras`` and loads when a source reads.
"""

from __future__ import annotations

from specvit.data.base import IGNORE_INDEX, Counts, Dataset, DataSource, Split
from specvit.data.file_source import FileSource, Prepared
from specvit.data.pair_source import PairSource
from specvit.data.sources import DATA_SOURCES, AnyDataSource

__all__ = [
    "DATA_SOURCES",
    "IGNORE_INDEX",
    "AnyDataSource",
    "Counts",
    "DataSource",
    "Dataset",
    "FileSource",
    "PairSource",
    "Prepared",
    "Split",
]
