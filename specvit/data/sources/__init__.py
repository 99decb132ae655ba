"""Data sources, one file each and nothing else.

A source is settings: what a sweep file says about images. It loads without torch, reads nothing until ``load``, and
decodes in the order of its files, so that equal settings and files give equal arrays. To add one, derive from
``DataSource``, ``FileSource`` or ``PairSource`` and list the class in ``DATA_SOURCES``.
"""

from typing import Annotated

from specvit.data.base import DataSource
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
    package=__name__,
    discriminator="source",
)

AnyDataSource = Annotated[DataSource, OneOf(DATA_SOURCES)]

__all__ = [
    "DATA_SOURCES",
    "Ade20k",
    "AnyDataSource",
    "Cityscapes",
    "Coco",
    "DepthMaps",
    "HuggingFace",
    "ImageFolder",
    "ImageNet",
    "Masks",
    "Nyuv2",
    "Scenes",
    "Voc",
    "WebDatasetShards",
]
