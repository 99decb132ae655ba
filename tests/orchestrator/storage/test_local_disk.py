from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.storage import local_disk
from orchestrator.storage.local_disk import forced_place, network_type, working_root
from specvit.errors import SpecsweepError

Mount = Callable[..., None]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Have file systems of given types mounted on folders, one after the other, below a root of ext4."""
    lines = ["27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"]
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(local_disk, "_MOUNTS", table)

    def add(kind: str, folder: Path) -> None:
        escaped = str(folder).replace(" ", "\\040")
        lines.append(f"99 27 0:50 / {escaped} rw,relatime shared:7 master:2 - {kind} server:/export rw,vers=4.2")
        table.write_text("\n".join([*lines, ""]))

    add("proc", Path("/proc"))
    return add


def test_a_folder_is_on_the_file_system_that_is_mounted_nearest_above_it(tmp_path: Path, mount: Mount) -> None:
    shared = tmp_path / "with a space"
    mount("nfs4", shared)
    mount("xfs", shared / "scratch")
    assert network_type(shared) == network_type(shared / "results" / "not" / "there") == "nfs4"
    assert network_type(shared / "scratch" / "results") == ""
    assert network_type(tmp_path) == network_type(tmp_path / "with a space, too") == ""


def test_of_two_mounts_in_one_place_the_later_one_is_seen(tmp_path: Path, mount: Mount) -> None:
    mount("autofs", tmp_path / "home")
    mount("nfs", tmp_path / "home")
    assert network_type(tmp_path / "home" / "me") == "nfs"


def test_a_link_is_where_it_leads(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "lustre").mkdir()
    mount("lustre", tmp_path / "lustre")
    (tmp_path / "results").symlink_to("lustre")
    assert network_type(tmp_path / "results" / "tiny") == "lustre"


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [
        *((kind, True) for kind in ("cifs", "smb3", "gpfs", "beegfs", "afs", "ceph", "9p", "fuse.sshfs", "fuse.s3fs")),
        *((kind, True) for kind in ("fuse.gcsfuse", "fuse.somebody-s-own", "fuse", "virtiofs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "apfs")),
        *((kind, False) for kind in ("fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs")),
    ],
)
def test_network_file_systems_are_told_from_disks(kind: str, is_shared: bool, tmp_path: Path, mount: Mount) -> None:
    mount(kind, tmp_path / "place")
    assert network_type(tmp_path / "place") == (kind if is_shared else "")


def test_where_nothing_tells_of_mounts_all_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_disk, "_MOUNTS", tmp_path / "absent")
    assert network_type(tmp_path) == ""


def test_this_machine_tells_of_its_mounts() -> None:
    assert local_disk._type_of(Path("/proc")) == "proc"


def test_the_environment_can_say_where_ledgers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECSWEEP_LEDGER", raising=False)
    assert forced_place() == ""
    monkeypatch.setenv("SPECSWEEP_LEDGER", "in-place")
    assert forced_place() == "in-place"
    monkeypatch.setenv("SPECSWEEP_LEDGER", "here")
    with pytest.raises(SpecsweepError, match="SPECSWEEP_LEDGER: must be 'mirror', 'in-place' or unset, not 'here'"):
        forced_place()


def test_where_homes_are_shared_working_copies_lie_among_temporary_files(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert working_root() == tmp_path / "home" / ".cache" / "specsweep"
    mount("nfs4", tmp_path / "home")
    own = tmp_path / f"specsweep-{os.getuid()}"
    assert working_root() == working_root() == own
    assert own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
    assert working_root() == tmp_path / "disk" / "specsweep"


def test_a_machine_without_a_disk_of_its_own_is_told_of(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mount("nfs4", tmp_path)
    with pytest.raises(SpecsweepError, match=r"is on nfs4 and .* on nfs4, but a ledger needs a disk of this machine"):
        working_root()


@pytest.mark.parametrize("trap", ["link", "file", "writable"])
def test_a_place_that_somebody_else_prepared_is_refused(
    trap: str, tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    mount("nfs4", tmp_path / "home")
    own = tmp_path / f"specsweep-{os.getuid()}"
    if trap == "link":
        own.symlink_to(tmp_path)
    elif trap == "file":
        own.write_text("")
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(SpecsweepError, match=r"must be a folder of yours|cannot be made"):
        working_root()
