"""Data sources, one file each. ``AnyDataSource`` is what the ``data`` section of a sweep file may hold."""

from __future__ import annotations

from typing import Annotated

from specvit.data.base import IGNORE_INDEX, Dataset, DataSource, Split
from specvit.data.sources.ade20k import Ade20k
from specvit.data.sources.cityscapes import Cityscapes
from specvit.data.sources.coco import Coco
from specvit.data.sources.depth import DepthMaps
from specvit.data.sources.hugging_face import HuggingFace
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.imagenet import ImageNet
from specvit.data.sources.masks import Masks
from specvit.data.sources.nyuv2 import Nyuv2
from specvit.data.sources.scenes import Scenes
from specvit.data.sources.voc import Voc
from specvit.data.sources.webdataset import WebDatasetShards
from specvit.plugins import OneOf, PartTable

DATA_SOURCES: PartTable[DataSource] = PartTable(
    DataSource,
    (
        Ade20k,
        Cityscapes,
        Coco,
        DepthMaps,
        HuggingFace,
        ImageFolder,
        ImageNet,
        Masks,
        Nyuv2,
        Scenes,
        Voc,
        WebDatasetShards,
    ),
    group="specsweep.data_sources",
    discriminator="source",
)

AnyDataSource = Annotated[DataSource, OneOf(DATA_SOURCES)]

__all__ = ["DATA_SOURCES", "IGNORE_INDEX", "AnyDataSource", "DataSource", "Dataset", "Split"]
