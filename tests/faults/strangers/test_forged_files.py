"""Training states, model checkpoints, images and shards that are something else: nothing is executed or unpacked."""

from __future__ import annotations

import csv
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.ledger.ledger import Ledger
from specvit.data import DATA_SOURCES
from specvit.data.reading.tar_shards import index_shards
from specvit.errors import DataError

from .hostile_results import Command, run_sweep


class Exploit:
    """Make a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def state_file(unrun: Path) -> Path:
    with (unrun / "weights" / "index.csv").open(newline="") as index:
        (trial_id,) = {row["trial"] for row in csv.DictReader(index)}
    path = unrun / "checkpoints" / f"{trial_id}.safetensors"
    path.parent.mkdir()
    return path


def _pickled(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Exploit(mark)))


def _huge_header(path: Path, _: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _deep_header(path: Path, _: Path) -> None:
    header = b'{"__metadata__":{"specvit_training_state":"' + b"[" * 200_000 + b'"}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _huge_tensor(path: Path, _: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_pickled, _huge_header, _deep_header, _huge_tensor, _pipe, _endless])
def test_a_training_state_that_is_no_such_file_is_not_used_and_training_begins_anew(
    make: Callable[[Path, Path], None], command: Command, unrun: Path, made: Path, tmp_path: Path
) -> None:
    make(state_file(unrun), tmp_path / "mark")
    assert run_sweep(command).returncode == 0
    with Ledger.read(unrun / "ledger.sqlite") as ledger, Ledger.read(made / "results/tiny/ledger.sqlite") as whole:
        assert ledger.records()[0].metrics == whole.records()[0].metrics
        assert ledger.records()[0].num_attempts == 1
    assert not (tmp_path / "mark").exists()


def test_a_training_state_that_is_a_link_is_replaced_and_deleted_not_what_it_leads_to(
    command: Command, unrun: Path, victims: Path
) -> None:
    path = state_file(unrun)
    path.symlink_to(victims / "thesis.tex")
    assert run_sweep(command).returncode == 0
    assert not path.exists()


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.bin", "evil.safetensors"])
def test_a_model_checkpoint_that_is_a_pickle_is_refused_and_not_executed(
    name: str, command: Command, unrun: Path, tmp_path: Path
) -> None:
    _pickled(tmp_path / name, tmp_path / "mark")
    pickle.loads((tmp_path / name).read_bytes())  # noqa: S301
    (tmp_path / "mark").unlink()  # it would be executed, if it were unpickled
    asked = [(verb, "tiny.yaml", "--set", f"model.checkpoint={name}") for verb in ("plan", "run")]
    codes = [command(*arguments).returncode for arguments in (*asked, ("diagnose", name, "--data", "scenes"))]
    assert codes == [2, 2, 2]
    assert not (tmp_path / "mark").exists()


def test_members_of_a_shard_that_lead_elsewhere_are_passed_over_and_nothing_is_unpacked(
    tmp_path: Path, victims: Path
) -> None:
    shard = tmp_path / "train-0.tar"
    with tarfile.open(shard, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, str(victims / "thesis.tex")
            tar.addfile(member)
        for name in (f"{victims}/thesis.png", "../../escaped.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    found = index_shards([shard], kinds=frozenset({"png"}), what="train")
    # Members are bytes at a place of the shard, under whatever name.
    assert [sample.read("png") for sample in found] == [b"evil"] * 2
    assert list(tmp_path.iterdir()) == [shard]


@pytest.mark.parametrize("make", [_pipe, _endless])
def test_an_image_or_a_depth_map_that_is_no_file_is_refused_and_nobody_waits_for_it(
    make: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    for source, folder, name in (("image_folder", "a", "y.png"), ("depth", "depth", "x.npy")):
        root = tmp_path / source
        for split in ("train", "val"):
            places = [root / split / "a"] if source == "image_folder" else [root / "images" / split]
            for place in places:
                place.mkdir(parents=True)
                Image.new("RGB", (8, 8), "red" if split == "val" else "blue").save(place / "x.png")
        bad = root / "train" / folder / name if source == "image_folder" else root / folder / "train" / name
        bad.parent.mkdir(parents=True, exist_ok=True)
        make(bad, tmp_path)
        if source == "depth":
            (root / folder / "val").mkdir()
            Image.new("I;16", (8, 8), 1000).save(root / folder / "val" / "x.png")
        with pytest.raises(DataError, match=f"{name}': Not a regular file"):
            DATA_SOURCES[source](root=str(root), image_size=32).load()
