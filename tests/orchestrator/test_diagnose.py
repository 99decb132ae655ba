"""The command that looks into one model: files and figure, and what it says of bad input."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from orchestrator.cli.app import main
from orchestrator.diagnose import load, parse_source
from orchestrator.reports.diagnostics.figure import draw_figure, make_figure
from specvit.checkpoints import save_model
from specvit.diagnostics.measurement import Measurement
from specvit.errors import ConfigError, SpecsweepError
from specvit.models.config import VitConfig, parse_high_norm
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., object]:
    """Run ``specsweep diagnose`` in ``tmp_path``; return exit code, what was printed, and the complaint."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["specsweep", "diagnose", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    model = build_vit(
        VitConfig(
            SCALES["nano"],
            image_size=32,
            patch_size=8,
            specialization="norm@all",
            high_norm=parse_high_norm("registers:4"),
        ),
    )
    save_model(model, tmp_path / "norms.safetensors")
    return tmp_path / "norms.safetensors"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_model_file_makes_a_table_a_figure_and_a_summary(
    run: Callable[..., tuple[int, str, str]], model_file: Path, tmp_path: Path
) -> None:
    code, out, err = run(str(model_file), "--data", "scenes", "--images", "8")
    assert (code, err) == (0, "")
    folder = Path("results", "diagnostics", "norms.safetensors")
    files = [str(folder / name) for name in ("diagnostics.csv", "diagnostics.png")]
    assert all(text in out for text in ("8 images of scenes, 32 px", "RankMe", *files))
    # 6 blocks: 4 sides of norms with 7 quantities, 6 shares of attention; the final norm's 2 sides; 2 RankMe.
    assert len(_rows(tmp_path / folder / "diagnostics.csv")) == 6 * (4 * 7 + 6) + 2 * 7 + 2
    with Image.open(tmp_path / folder / "diagnostics.png") as figure:
        assert figure.format == "PNG"
        assert np.asarray(figure.convert("L")).std() > 5
    assert not [path for path in (tmp_path / folder).iterdir() if path.name.startswith(".")]


def test_a_model_of_timms_is_shown_images_of_its_size_by_its_own_statistics(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for split, darkest in (("train", 10), ("val", 20)):
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        for number in range(2):
            pixels = np.full((40, 40, 3), 60 * number + darkest, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / "a" / f"{number}.png")
    code, out, _ = run("test_vit", "--untrained", "--data", "image_folder:images", "--out", "here")
    assert code == 0
    assert "2 images of image_folder:images, 160 px" in out
    # The same by hand: timm's own statistics for this model, and the norm of [CLS] where it enters.
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    assert load("test_vit", untrained=True).mean == model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    pixels = torch.stack([torch.full((3, 160, 160), value / 255) for value in (20, 80)])
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed((pixels - 0.5) / 0.5))
    (row,) = (
        row for row in _rows(tmp_path / "here" / "diagnostics.csv")
        if (row["block"], row["site"], row["quantity"]) == ("0", "norm1.in", "patch_norm")
    )
    assert float(row["value"]) == pytest.approx(float(tokens[:, 1:].norm(dim=-1).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope", "--data", "scenes"), "no file and no model of timm's is called 'nope'"),
        (("vit_tiny_patch16_22", "--data", "scenes"), "did you mean 'vit_tiny_patch16_224'?"),
        (("gone.safetensors", "--data", "scenes"), "gone.safetensors"),
        (("resnet18", "--untrained", "--data", "scenes"), "must be a VisionTransformer of timm's"),
        (("MODEL", "--untrained", "--data", "scenes"), "--untrained goes with the name"),
        (("MODEL", "--data", "scene"), "did you mean 'scenes'?"),
        (("MODEL", "--data", "scenes:x"), "scenes takes no folder"),
        (("MODEL", "--data", "masks"), "must be masks:ROOT"),
        (("MODEL", "--data", "masks:gone"), "no folder"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...], message: str, run: Callable[..., tuple[int, str, str]], model_file: Path
) -> None:
    code, _, err = run(*(str(model_file) if word == "MODEL" else word for word in arguments))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_weights_that_cannot_be_had_are_an_error_that_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, **_: object) -> None:
        raise FileNotFoundError("the hub cannot be reached\nand more")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(SpecsweepError, match=r"'test_vit' cannot be had; --untrained .* \(the hub cannot be reached\)"):
        load("test_vit")


def test_a_model_without_cls_is_refused_before_any_data_are_read() -> None:
    with pytest.raises(ConfigError, match=r"\[CLS\] token, but 'test_vit2' has none"):
        load("test_vit2", untrained=True)


def test_scenes_are_drawn_at_the_models_size_and_number() -> None:
    source = parse_source("scenes", image_size=48, num_images=5)
    assert source.load().val.images.shape == (5, 3, 48, 48)
    with pytest.raises(ConfigError, match="at least 16"):
        parse_source("scenes", image_size=8, num_images=5)


def _readings() -> list[Measurement]:
    readings = []
    for block in range(3):
        site = "norm1" if block < 2 else "final_norm"
        for side in ("in", "out"):
            quantities = {"cls_patch_cosine": 0.5, "patch_patch_cosine": 0.5, "cls_norm": 3.0, "patch_norm": 3.0}
            readings += [Measurement(block, f"{site}.{side}", name, value) for name, value in quantities.items()]
    return [*readings, *(Measurement(block, "attention", "cls_to_patches", 0.5 + block / 4) for block in range(2))]


def test_the_figure_has_a_curve_for_each_thing_measured() -> None:
    figure = make_figure(_readings(), title="a model")
    curves = {
        (axes.get_title(), line.get_label()): line.get_xydata().tolist()
        for axes in figure.axes
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }
    assert len(curves) == 2 + 2 + 2 + 1
    assert curves["Attention shares", "[CLS] to patches"] == [[0, 0.5], [1, 0.75]]
    assert curves["Token norms, before norm1", "patches"] == [[0, 3], [1, 3], [2, 3]]
    assert all(axes.get_ylabel() and axes.get_title() for axes in figure.axes)


def test_the_figure_of_a_model_with_another_trunk_says_what_was_not_measured(tmp_path: Path) -> None:
    final = [reading for reading in _readings() if reading.site.startswith("final")]
    assert [text.get_text() for text in make_figure(final, title="").axes[3].texts] == [
        "not measured: the blocks run as a whole"
    ]
    with pytest.raises(SpecsweepError, match="cannot be written"):
        draw_figure(final, tmp_path / "gone" / "x.png", title="")
