"""NYU Depth v2 (Silberman et al. 2012), in the layout that the BTS repository made common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.data.reading.name_forms import existing
from specvit.data.reading.paths import is_inside
from specvit.data.sources.depth import DepthMaps
from specvit.errors import DataError
from specvit.files.regular import read_regular
from specvit.lazy_numpy import np
from specvit.settings import Flag, PositiveFloat, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYOUT = (
    "nyuv2 reads ROOT/nyu_train.txt and ROOT/nyu_test.txt, lines of IMAGE DEPTH [FOCAL LENGTH] whose files lie "
    "in ROOT, or in ROOT/sync and ROOT/official_splits/test"
)
_LISTS = {
    "train": ("nyu_train.txt", "nyudepthv2_train_files_with_gt.txt"),
    "val": ("nyu_test.txt", "nyudepthv2_test_files_with_gt.txt"),
}
_FOLDERS = {"train": ("sync",), "val": ("official_splits", "test")}
_SIZE = (480, 640)
_EIGEN_ROWS, _EIGEN_COLUMNS = slice(45, 471), slice(41, 601)


@settings
class Nyuv2(DepthMaps):
    """Read NYU Depth v2: ``root/nyu_train.txt`` (24 231 pairs) and ``root/nyu_test.txt`` (654 pairs), the val split.

    A line of a list names an image and its 16-bit PNG in millimetres, such as ``/kitchen_0028b/rgb_00045.jpg
    /kitchen_0028b/sync_depth_00045.png 518.8579``; the focal length is not used. The files lie below ``root``,
    or as BTS unpacks them: those of train below ``root/sync``, those of val below ``root/official_splits/test``.
    BTS's names of the lists, ``nyudepthv2_{train,test}_files_with_gt.txt``, are known too. Decoded at 224 pixels all
    pairs take 6 GB: of memory, or with ``cache: disk`` of the disk; with ``keep: encoded`` depth alone, 2.5 GB.

    Source: cleinc/bts (data and evaluation), and the lists of zhyever/Monocular-Depth-Estimation-Toolbox, which
    DINOv2 and DINOv3 follow. They see whole images and score at 480 x 640. Deviations: images are squashed to a square,
    and predictions are scored at that size; with ``keep: encoded`` images are their centres, and predictions are scored
    at 480 x 480, of the crop rows 45 to 470 and columns 80 to 559. A depth of just 10 m counts, as in neither.
    """

    name: ClassVar[str] = "nyuv2"
    source: Literal["nyuv2"] = "nyuv2"  # type: ignore[assignment]

    max_depth_m: PositiveFloat | None = 10.0
    """Largest depth that counts, in metres: a pixel farther away is taken as not measured. None = any depth."""
    eigen_crop: Flag = True
    """Whether depth counts only within the evaluation crop of Eigen et al. 2014, rows 45 to 470 and columns 41 to
    600 of 480 x 640; in both splits, since the frame outside it is mostly blank. Images stay whole."""

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return how many pairs BTS's lists have."""
        return 24_231, 654

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its depth map; where bad images are skipped, files may be gone."""
        names = _LISTS[split]
        listing = next((root / name for name in names if (root / name).is_file()), root / names[0])
        try:
            lines = read_regular(listing).decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {str(listing)!r}: {error}; {_LAYOUT}") from error
        below = root.joinpath(*_FOLDERS[split])
        folder = below if below.is_dir() else root
        found = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            image, depth, *_ = [name.lstrip("/") for name in (*line.split(), "")]
            for name in (image, depth):
                if name and not is_inside(name):
                    raise DataError(
                        f"line {number} of {str(listing)!r} must name files within {str(folder)!r}, not {name!r}"
                    )
            pair = existing(folder / image), existing(folder / depth)
            for path, name, kind in zip(pair, (image, depth), ("image", "depth map"), strict=True):
                if (self.on_bad_image == "fail" or not name) and not path.is_file():
                    raise DataError(f"line {number} of {str(listing)!r} names no {kind} {str(path)!r}: {_LAYOUT}")
            found.append(pair)
        if not found:
            raise DataError(f"{str(listing)!r} names no image: {_LAYOUT}")
        return found

    def counted(self, depth: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
        """Set to 0 what does not count as measured, or lies outside the crop."""
        depth = super().counted(depth, path)
        if not self.eigen_crop:
            return depth
        if depth.shape != _SIZE:
            height, width = depth.shape
            raise DataError(
                f"the depth map {str(path)!r} must have 640x480 pixels for data.eigen_crop, not {width}x{height}"
            )
        cropped = np.zeros_like(depth)
        cropped[_EIGEN_ROWS, _EIGEN_COLUMNS] = depth[_EIGEN_ROWS, _EIGEN_COLUMNS]
        return cropped
