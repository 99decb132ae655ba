"""Reading files of images, labels, annotations and shards.

An ``ImageReader`` decodes the images of a source, in threads; ``crop_to_square`` and ``squash_to_square`` resize.
Whatever a file holds, it is read or refused by a ``DataError`` that names it: nothing is unpickled, and no path leads
out of the folder that the user named.
"""

from specvit.data.reading.coco_annotations import read_annotations
from specvit.data.reading.image_files import crop_to_square, list_images, squash_mask, squash_to_square
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.label_names import encode_labels
from specvit.data.reading.paths import check_disjoint, is_inside
from specvit.data.reading.tar_shards import index_shards

__all__ = [
    "ImageReader",
    "check_disjoint",
    "crop_to_square",
    "encode_labels",
    "index_shards",
    "is_inside",
    "list_images",
    "read_annotations",
    "squash_mask",
    "squash_to_square",
]
