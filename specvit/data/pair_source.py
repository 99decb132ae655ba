"""Images that have a file of their own each for their target, such as a mask: what these sources have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from specvit.data.base import Counts, Dataset, Split
from specvit.data.cache.array_storage import MemoryStorage, Storage
from specvit.data.cache.found_targets import found_path, read_found, write_found
from specvit.data.encoded import EncodedImages
from specvit.data.file_source import FileSource, Prepared
from specvit.data.own_targets import OwnTargets
from specvit.data.places import Places
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_decoding import limit_pixels
from specvit.data.reading.image_files import IMAGE_SUFFIXES, SPLITS, existing_folder, existing_root, list_images
from specvit.data.reading.name_forms import check_forms, composed
from specvit.data.reading.progress import LOGGER
from specvit.errors import DataError
from specvit.settings import settings

Pairs = list[tuple[Path, Path]]
"""Images, each with the file of its target."""


@settings
class PairSource(FileSource):
    """Read images with one target file each. A subclass lists the pairs of a split, and decodes them."""

    path_fields: ClassVar[frozenset[str]] = FileSource.path_fields | {"root"}

    root: str
    """The folder of the images and their targets; ``~`` is expanded, a relative path starts at the current folder."""

    def prepare(self) -> Prepared:
        """Find the images of both splits, each with its target.

        Raises:
            DataError: If a folder is missing or empty, or an image lacks its target or a target its image.
        """
        root = existing_root(self.root)
        pairs = {split: self.pairs(root, split) for split in SPLITS}
        files = [path for split in SPLITS for pair in pairs[split] for path in pair]
        images = {split: [image for image, _ in pairs[split]] for split in SPLITS}
        parents = dict.fromkeys(image.parent for split in SPLITS for image, _ in pairs[split])
        return Prepared(
            files=files,
            read=partial(self._read, root, pairs),
            images=images,
            folders={parent: IMAGE_SUFFIXES for parent in parents if parent.is_dir()},  # all of one may be gone
            encoded=partial(self._encoded, root, pairs),
        )

    @abstractmethod
    def pairs(self, root: Path, split: str) -> Pairs:
        """List the images of a split, each with its target.

        Args:
            root: The folder of the data, which exists.
            split: ``train`` or ``val``.

        Raises:
            DataError: If a folder is missing or empty, or an image lacks its target or a target its image.
        """

    def _count(self, deadline: Deadline) -> Counts | None:
        """Count the entries of ``images``, of a layout that has this folder."""
        root = existing_root(self.root)
        train, val = (deadline.count([root / "images" / split]) for split in SPLITS)
        return Counts(train, val)

    def _encoded(self, root: Path, pairs: Mapping[str, Pairs]) -> Dataset:
        """Make both splits of images that stay encoded, of what an earlier start found in them where one did."""
        files = [path for split in SPLITS for pair in pairs[split] for path in pair]
        path = found_path(self, files, cache_folder=self.cache_folder)
        storage, num_images = MemoryStorage(keeps_encoded=True), {split: len(pairs[split]) for split in SPLITS}
        found = None if path is None else read_found(path, num_images, size=self.probed_size, storage=storage)
        if found is not None and all(self._are_still_bad(pairs[split], found.bad[split]) for split in SPLITS):
            LOGGER.info("targets as of an earlier start: %s", path)
            train, val = (
                Split(images=self.encoded_pairs(pairs[split], found.bad[split]), **found.targets[split])
                for split in SPLITS
            )
            return Dataset(
                train=train, val=val, class_names=(), mask_names=found.mask_names, fingerprint=found.fingerprint
            )
        dataset = self._read(root, pairs, MemoryStorage(keeps_encoded=True))
        if path is not None:
            write_found(path, dataset)
        return dataset

    def _are_still_bad(self, pairs: Pairs, bad: Mapping[int, str]) -> bool:
        """Return whether nothing of what could not be used can be: a file server may have been away for a moment."""
        reader, tried = self.reader(), [pairs[number] for number in bad]
        (targets,) = self.own_targets(Places.of_files([target for _, target in tried])).values()
        with limit_pixels(self.max_pixels):
            for number, (image, _) in enumerate(tried):
                try:
                    reader.read_header(image)
                    targets[number]
                except DataError:
                    continue
                return False
        return True

    def encoded_pairs(self, pairs: Pairs, bad: Mapping[int, str]) -> EncodedImages:
        """Return the images of a split, which stay encoded, with their targets at their own size.

        Args:
            pairs: Images and targets.
            bad: Why some cannot be used, by number.
        """
        images, targets = (Places.of_files([pair[number] for pair in pairs]) for number in (0, 1))
        skipped: dict[str, str] = {}
        own = self.own_targets(targets, skipped if self.on_bad_image == "skip" else None)
        return self.encoded_images(images, own, bad, skipped)

    def own_targets(self, places: Places, skipped: dict[str, str] | None = None) -> dict[str, OwnTargets]:
        """Return targets at their own size, by name: for sources whose ``can_keep_encoded`` says so.

        Args:
            places: Their files.
            skipped: Where it is noted, by name, why one cannot be read; None = that is an error.
        """
        raise NotImplementedError

    @abstractmethod
    def _read(self, root: Path, pairs: Mapping[str, Pairs], storage: Storage) -> Dataset:
        """Decode both splits."""


def match_by_name(
    image_folder: Path, target_folder: Path, *, rule: str, kind: str = "mask", suffixes: Sequence[str] = (".png",)
) -> list[tuple[Path, Path]]:
    """Match the images of a folder to masks or other targets, by name in any Unicode form, without ending.

    Args:
        image_folder: Folder of images.
        target_folder: Folder of the targets, a file an image.
        rule: What the layout asks for, for messages.
        kind: What a target is called, for messages.
        suffixes: Endings, in any case, that make a file a target.

    Raises:
        DataError: If a folder is missing, there are no images, an image lacks its target or a target its image,
            or two files share a partner.
    """
    images = _by_stem(list_images(existing_folder(image_folder, rule=rule)), partner=kind)
    if not images:
        raise DataError(f"no images in {str(image_folder)!r}: {rule}, endings {', '.join(IMAGE_SUFFIXES)}")
    targets = _by_stem(list_images(existing_folder(target_folder, rule=rule), suffixes), partner="image")
    for stem, path in images.items():
        if stem not in targets:
            wanted = " or ".join(repr(str(target_folder / f"{stem}{suffix}")) for suffix in suffixes)
            raise DataError(f"the image {str(path)!r} has no {kind} {wanted}")
    for stem, path in targets.items():
        if stem not in images:
            raise DataError(f"the {kind} {str(path)!r} has no image {str(image_folder / stem)!r}.*")
    return [(path, targets[stem]) for stem, path in images.items()]


def _by_stem(paths: list[Path], *, partner: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        stem = composed(path.stem)
        if stem in found:
            check_forms((found[stem].name, path.name), what=f"in {str(path.parent)!r},")
            raise DataError(f"{str(found[stem])!r} and {str(path)!r} would share one {partner}: rename one")
        found[stem] = path
    return found
