"""ImageNet's official archives, read where they lie: a tar file of tar files to train on, a flat one to report on.

Nothing is unpacked: headers are walked once, and images are read by their place.

Source: the archives of ILSVRC2012 (image-net.org), as torchvision's ``datasets/imagenet.py`` reads them: labels of the
validation images are numbers in the development kit, whose ``meta.mat`` says which class each number is.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from specvit.data.reading.progress import Progress
from specvit.data.reading.shared_images import Encoded
from specvit.errors import DataError
from specvit.files.regular import read_regular

TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"

_TRUTH, _META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
_ERRORS = (tarfile.TarError, OSError, EOFError)


def has_archives(root: Path) -> bool:
    """Return whether a folder holds the archives, in place of what they unpack to."""
    return (root / TRAIN).is_file() and not (root / "train").is_dir()


def index_train(root: Path) -> dict[str, list[Encoded]]:
    """Find the training images: by class, sorted, those of a class by name.

    Raises:
        DataError: If the archive cannot be read, or holds no classes.
    """
    path = root / TRAIN
    progress = Progress(f"classes of {TRAIN}", None)
    found: dict[str, list[Encoded]] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as outer:
            for member in outer:
                if not (member.isreg() and member.name.endswith(".tar")):
                    continue
                name = Path(member.name).stem
                with path.open("rb") as again:
                    found[name] = sorted(_images(again, path, member), key=lambda image: image.name)
                progress.update(len(found))
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    if not found or not all(found.values()):
        raise DataError(f"{str(path)!r} must hold a tar file of images for each class")
    return dict(sorted(found.items()))


def index_val(root: Path) -> dict[str, list[Encoded]]:
    """Find the validation images: by class, sorted, those of a class by name.

    Raises:
        DataError: If an archive cannot be read, or images and labels differ in number.
    """
    path = root / VAL
    try:
        with path.open("rb") as file:
            images = sorted(_images(file, path, None), key=lambda image: image.name)
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    classes, truth = _read_kit(root / KIT)
    if len(images) != len(truth):
        raise DataError(f"{str(path)!r} must hold as many images as {KIT} has labels, {len(truth)}, not {len(images)}")
    found: dict[str, list[Encoded]] = {name: [] for name in sorted(classes.values())}
    for image, number in zip(images, truth, strict=True):
        if number not in classes:
            raise DataError(f"{str(root / KIT)!r}: the label {number} of {image.name!r} is that of no class")
        found[classes[number]].append(image)
    return {name: of_class for name, of_class in found.items() if of_class}


def _images(file: IO[bytes], path: Path, inner: tarfile.TarInfo | None) -> Iterator[Encoded]:
    """Yield the images of a tar file, or of one that is a member of it."""
    start = 0 if inner is None else inner.offset_data
    length = path.stat().st_size if inner is None else start + inner.size
    file.seek(start)
    place = str(path) if inner is None else f"{path}: {inner.name}"
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if not member.isreg():
                continue
            if member.offset_data + member.size > length:
                raise DataError(f"cannot read {str(path)!r}: it is cut off in {member.name!r}")
            yield Encoded(path, member.offset_data, member.size, f"{place}: {member.name}")


def _read_kit(path: Path) -> tuple[dict[int, str], list[int]]:
    """Return the class of each number, and the numbers of the validation images in their order."""
    from scipy.io import loadmat

    try:
        contents: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(read_regular(path)), mode="r:gz") as tar:
            for member in tar:
                for wanted in (_TRUTH, _META):
                    if member.isreg() and member.name.endswith(wanted):
                        extracted = tar.extractfile(member)
                        assert extracted is not None
                        contents[wanted] = extracted.read()
        rows: Any = loadmat(io.BytesIO(contents[_META]), squeeze_me=True)["synsets"]
        classes = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if int(row["num_children"]) == 0}
        return classes, [int(number) for number in contents[_TRUTH].split()]
    except KeyError as error:
        raise DataError(f"{str(path)!r} must hold {error}") from error
    except (*_ERRORS, ValueError, TypeError, IndexError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}")
