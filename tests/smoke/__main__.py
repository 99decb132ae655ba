"""Runs sweeps of ``sweeps/paper`` from their files to their tables, in miniature: ``make smoke``.

The files are those that users run, on data sets that are made beforehand and laid out as ImageNet and ADE20K unpack.
``OVERRIDES`` says what is smaller: a few steps of the smallest model, on a core, one seed. All arms are run.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .miniatures import NUM_CLASSES, make_ade20k, make_imagenet

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "sweeps" / "paper"

OVERRIDES = (
    "vary.model.scale=[nano]",
    "data.image_size=64",
    "probes.segmentation.data.image_size=64",
    "probes.segmentation.data.probe_size=96",  # not what crops have: positions are resampled, as at real scale
    "probes.knn.num_train=200",
    "probes.linear.num_train=200",
    "objective.steps=2",
    "objective.batch_size=4",
    "objective.micro_batch=2",
    "objective.local_size=32",
    "objective.num_prototypes=8192",
    "objective.head_hidden=32",
    "objective.head_bottleneck=16",
    "rungs={count: 1, num_images: 16}",
    "seeds=[0]",
    "resources={cpus: 1}",
)
"""What ``--set`` makes smaller; 8192 prototypes are the fewest that take the path of the published 65,536."""


def make_data(folder: Path, *, num_classes: int = NUM_CLASSES) -> tuple[str, str]:
    """Make the miniature data sets in a folder, where it has none; return the overrides that name them."""
    imagenet, ade20k = folder / "imagenet", folder / "ade20k"
    for root, make in ((imagenet, partial(make_imagenet, num_classes=num_classes)), (ade20k, make_ade20k)):
        if not root.exists():
            with TemporaryDirectory(dir=_made(folder)) as making:  # what is half made is not taken for whole
                make(Path(making) / root.name)
                (Path(making) / root.name).rename(root)
    return f"data.root={imagenet}", f"probes.segmentation.data.root={ade20k}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def command(name: str, folder: Path, *, overrides: Sequence[str] = ()) -> list[str]:
    """Return the arguments of ``specsweep`` that run a sweep of ``sweeps/paper`` in miniature.

    Args:
        name: The file's, without its ending.
        folder: Of ``make_data``; the results go there too.
        overrides: More of them, which come last.
    """
    pairs = [("--set", each) for each in (*make_data(folder), *OVERRIDES, *overrides)]
    options = ["--name", f"smoke-{name}", "--results", str(folder / "results")]
    return ["run", str(PAPER / f"{name}.yaml"), *options, *(word for pair in pairs for word in pair)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; return the exit code of the first run that fails, else 0."""
    names = sorted(path.stem for path in PAPER.glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="smoke", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=f"of {', '.join(names)} (default: components)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "results" / "smoke", help="for data and results (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    wanted = options.sweeps or ["components"]
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"SWEEP must be among {', '.join(names)}, not {', '.join(unknown)}")
    for name in wanted:
        words = command(name, options.folder.resolve())
        print(shlex.join(["specsweep", *words]), flush=True)
        done = subprocess.run([str(Path(sys.executable).with_name("specsweep")), *words], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
