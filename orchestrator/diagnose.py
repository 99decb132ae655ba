"""One model looked into: what ``specvit.diagnostics.diagnose`` reads off it, as a file, a figure and a short table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import specvit.models.timm_registry  # noqa: F401  its names are among those that timm takes
from orchestrator.reports.diagnostics.csv_file import CSV_NAME, render_measurements
from orchestrator.reports.diagnostics.figure import draw_figure
from specvit.data import DATA_SOURCES, DataSource
from specvit.device import select_device
from specvit.diagnostics.diagnose import FINAL_NORM, diagnose
from specvit.diagnostics.measurement import Measurement
from specvit.errors import ConfigError, SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.messages import did_you_mean
from specvit.training.augment import MEAN, STD, to_unit

FIGURE_NAME = "diagnostics.png"

_MODEL_FILE = ".safetensors"
_UNREACHABLE = (OSError, RuntimeError, ValueError, ImportError)
"""What timm and its hub client raise for weights that do not exist, cannot be reached, or do not fit."""

_SHOWN = (
    ("[CLS]-patch cosine before norm1", "norm1.in", "cls_patch_cosine"),
    ("[CLS]-patch cosine after norm1", "norm1.out", "cls_patch_cosine"),
    ("patch-patch cosine before norm1", "norm1.in", "patch_patch_cosine"),
    ("patch-patch cosine after norm1", "norm1.out", "patch_patch_cosine"),
    ("[CLS] norm before norm1", "norm1.in", "cls_norm"),
    ("patch norm before norm1", "norm1.in", "patch_norm"),
    ("share of patches of high norm", "norm1.in", "high_norm_share"),
    ("the same, relative to the median", "norm1.in", "high_norm_share_relative"),
    ("attention of [CLS] to patches", "attention", "cls_to_patches"),
    ("attention of a patch to [CLS]", "attention", "patches_to_cls"),
)


@dataclass(frozen=True)
class LoadedModel:
    """A model, and what its pixels are normalised by.

    Attributes:
        model: The model.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
    """

    model: VisionTransformer
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def image_size(self) -> int:
        """Return the side of the images that the model takes.

        Raises:
            ConfigError: If they are not square.
        """
        height, width = self.model.patch_embed.img_size
        if height != width:
            raise ConfigError(f"the model takes images of {height}x{width} pixels; they must be square here")
        return int(height)


def load(name: str, *, untrained: bool = False) -> LoadedModel:
    """Load a model file, or a model of timm's by its name.

    Args:
        name: A file that ``specvit.checkpoints.save_model`` wrote, or a name that ``timm.create_model`` takes.
        untrained: Whether to draw the weights of timm's model at random instead of loading them.

    Raises:
        SpecsweepError: If there is no such model, its weights cannot be had, or it is not a ViT.
    """
    if Path(name).exists() or name.endswith(_MODEL_FILE):
        if untrained:
            raise ConfigError(f"--untrained goes with the name of a model, not with the file {name!r}")
        from specvit.checkpoints import load_model

        return LoadedModel(load_model(name))
    if not timm.is_model(name):
        close = did_you_mean(name, timm.list_models()) or did_you_mean(name, timm.list_pretrained())
        raise ConfigError(f"no file and no model of timm's is called {name!r}{close}")
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, pretrained=not untrained, num_classes=0)
    except _UNREACHABLE as error:
        reason = str(error).strip().partition("\n")[0]
        if untrained:
            raise ConfigError(f"no model of timm's can be made as {name!r}: {reason}") from error
        raise SpecsweepError(
            f"the weights of {name!r} cannot be had; --untrained looks at random ones ({reason})"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise ConfigError(f"the model must be a VisionTransformer of timm's, but {name!r} is a {type(model).__name__}")
    if not model.has_class_token:
        raise ConfigError(f"the model must have a [CLS] token, but {name!r} has none")
    published = cast("dict[str, Any]", model.pretrained_cfg)
    return LoadedModel(model, mean=published["mean"], std=published["std"])


def parse_source(text: str, *, image_size: int, num_images: int) -> DataSource:
    """Return the data source of ``NAME`` or ``NAME:ROOT``, at the size of the model's images.

    Raises:
        ConfigError: If there is no such source, or it needs a root, or takes none.
    """
    name, colon, root = text.partition(":")
    if name not in DATA_SOURCES:
        raise ConfigError(
            f"--data {text}: must be one of {', '.join(DATA_SOURCES)}, with :ROOT where it reads a folder"
            + did_you_mean(name, list(DATA_SOURCES))
        )
    source = DATA_SOURCES[name]
    root_field = next((field for field in ("root", "path") if field in source.path_fields), None)
    takes_root = root_field is not None
    if takes_root != bool(root) or bool(colon) != takes_root:
        rule = f"must be {name}:ROOT, the folder of its images" if takes_root else f"{name} takes no folder"
        raise ConfigError(f"--data {text}: {rule}")
    if root_field is not None:
        fields: dict[str, object] = {root_field: root}
    else:
        fields = {"num_train": 1, "num_val": num_images}
    try:
        return source(image_size=image_size, **fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--data {text}: {problem['msg'].removeprefix('Value error, ')}") from None


def diagnose_model(
    name: str, *, data: str, num_images: int, folder: Path | None, untrained: bool, console: Console
) -> None:
    """Look into a model, write ``diagnostics.csv`` and ``diagnostics.png``, and print a summary.

    Args:
        name: See ``load``.
        data: See ``parse_source``; the first images of the ``val`` split are taken.
        num_images: How many of them, at most.
        folder: Where to write; None = ``results/diagnostics/`` and the model's name.
        untrained: See ``load``.
        console: Where to print.

    Raises:
        SpecsweepError: If the model or the data cannot be used, or a file cannot be written.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    folder = folder or Path("results", "diagnostics", re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name).strip("."))
    _make_folder(folder)
    if not untrained and timm.is_model(name):
        say(f"loading the weights of {name}")
    loaded = load(name, untrained=untrained)
    model, size = loaded.model, loaded.image_size
    origin = " (random weights)" if untrained else ""
    say(f"model: {name}{origin}, {len(model.blocks)} blocks of width {model.embed_dim}")
    images = parse_source(data, image_size=size, num_images=num_images).load().val.images[:num_images]
    say(f"data: {len(images)} images of {data}, {size} px")
    device = select_device()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (loaded.mean, loaded.std))
    pixels = to_unit(images.copy(), device)
    measurements = _diagnose(
        model.to(device.torch_device), (pixels - mean.to(pixels)) / std.to(pixels), console=console
    )
    csv_path, figure_path = folder / CSV_NAME, folder / FIGURE_NAME
    write_atomically(csv_path, render_measurements(measurements))
    draw_figure(measurements, figure_path, title=f"{Path(name).name}{', random weights' if untrained else ''}, {data}")
    console.print(_summary(measurements))
    ranks = {one.quantity: one.value for one in measurements if one.quantity.endswith("_rankme")}
    say(
        f"RankMe: {ranks['cls_rankme']:.1f} of [CLS] (at most {min(len(images), model.embed_dim)}), "
        f"{ranks['patch_rankme']:.1f} of patches (at most {model.embed_dim}). Near 1 the features have collapsed; "
        "otherwise it says nothing about how good they are for dense tasks."
    )
    say(f"written: {csv_path}, {figure_path}")


def _make_folder(folder: Path) -> None:
    """Make the folder before the work, so that one that cannot be made is told of before it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{folder}: cannot be written to ({error})") from error


def _diagnose(model: VisionTransformer, images: Tensor, *, console: Console) -> tuple[Measurement, ...]:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("diagnosing", total=len(images))
        tell: Callable[[int, int], None] = lambda done, _: progress.update(task, completed=done)  # noqa: E731
        return diagnose(model, images, progress=tell)


def _summary(measurements: tuple[Measurement, ...]) -> Table:
    """Return how the main quantities go with depth: a few blocks, and the tokens that enter the final norm."""
    values = {(one.block, one.site, one.quantity): one.value for one in measurements}
    depth = max(one.block for one in measurements)
    measured = sorted({one.block for one in measurements} - {depth})
    blocks = sorted({measured[round(part * (len(measured) - 1) / 3)] for part in range(4)}) if measured else []
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for block in blocks:
        table.add_column(f"block {block}", justify="right")
    table.add_column("final norm", justify="right")
    for text, site, quantity in _SHOWN:
        places = [(block, site) for block in blocks] + [(depth, site.replace("norm1", FINAL_NORM))]
        cells = [values.get((*place, quantity)) for place in places]
        if any(cell is not None for cell in cells):
            table.add_row(text, *("" if cell is None else f"{cell:.3f}" for cell in cells))
    return table
