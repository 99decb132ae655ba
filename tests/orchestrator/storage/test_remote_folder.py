from __future__ import annotations

import threading
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from orchestrator.storage.remote_folder import RemoteError, RemoteFolder, is_url


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    """Give a folder that does not exist yet, in two kinds of stores."""
    root = (tmp_path / "store").as_uri() if request.param == "file" else f"memory://{uuid4().hex}"
    return RemoteFolder(root) / "tiny"


@pytest.mark.parametrize(("text", "expected"), [("s3://b/x", True), ("results", False), ("/a/b:c", False)])
def test_a_url_is_told_from_a_path_by_its_scheme(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_slashes_at_the_end_of_a_url_do_not_count() -> None:
    assert str(RemoteFolder("s3://bucket/results//") / "tiny") == "s3://bucket/results/tiny"


def test_a_file_comes_back_as_it_was_put_and_takes_the_place_of_the_one_before(
    folder: RemoteFolder, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for content in (b"first", b"second"):
        source.write_bytes(content)
        folder.put("a", source)
        assert folder.get("a", target)
        assert target.read_bytes() == folder.get_bytes("a") == content
    assert folder.names() == ("a",)


def test_what_is_not_there_is_none_and_can_be_deleted(folder: RemoteFolder, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    assert folder.get_bytes("a") is None
    assert not folder.get("a", target)
    assert target.read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} <= {"target", "store"}
    assert folder.names() == ()
    folder.delete("a")


def test_files_and_folders_are_listed_apart(folder: RemoteFolder) -> None:
    folder.put_bytes("b", b"x")
    folder.put_bytes("a", b"x")
    (folder / "deep").put_bytes("c", b"x")
    assert folder.names() == ("a", "b")
    assert folder.names(folders=True) == ("deep",)
    folder.delete("a")
    assert folder.names() == ("b",)


def test_a_file_is_created_once(folder: RemoteFolder) -> None:
    assert folder.create("lock", b"first")
    assert not folder.create("lock", b"second")
    assert folder.get_bytes("lock") == b"first"


@pytest.mark.parametrize(
    "error", [TimeoutError("slow"), OSError("throttled"), ValueError("no JSON in the answer"), TypeError("no answer")]
)
def test_a_conditional_write_that_fails_is_an_error_and_not_followed_by_another_write(
    folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder.put_bytes("beside", b"x")
    written = _refusing_conditional_writes(folder, monkeypatch, error)
    with pytest.raises(RemoteError, match=rf"^{folder}/lock: cannot be written \({type(error).__name__}: {error}\)"):
        folder.create("lock", b"own")
    assert written == []
    assert folder.get_bytes("lock") is None


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError(),
        TypeError("pipe_file() got an unexpected keyword argument 'mode'"),
        ValueError("unsupported mode: 'xb'"),
    ],
)
def test_a_store_without_conditional_writes_is_asked_what_is_there(
    folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder.put_bytes("beside", b"x")
    _refusing_conditional_writes(folder, monkeypatch, error)
    assert folder.create("lock", b"first")
    assert not folder.create("lock", b"second")
    assert folder.get_bytes("lock") == b"first"


def _refusing_conditional_writes(
    folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> list[str]:
    """Let conditional writes fail by ``error``; return the list of the other writes to come."""
    store, written = fsspec.core.url_to_fs(folder.url)[0], []
    write = store.pipe_file

    def pipe_file(path: str, value: bytes, mode: str = "overwrite", **options: object) -> None:
        if mode == "create":
            raise error
        written.append(path)
        write(path, value, **options)

    monkeypatch.setattr(store, "pipe_file", pipe_file)
    return written


def test_what_another_thread_has_written_is_seen(folder: RemoteFolder) -> None:
    assert folder.names() == ()
    thread = threading.Thread(target=folder.put_bytes, args=("a", b"x"))
    thread.start()
    thread.join()
    assert folder.names() == ("a",)


def test_a_failed_upload_names_url_and_reason_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    folder = RemoteFolder((tmp_path / "store").as_uri())
    with pytest.raises(RemoteError, match=rf"{folder}/a: cannot be written \(FileNotFoundError: "):
        folder.put("a", tmp_path / "absent")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_that_cannot_be_used_is_told_of_with_url_and_reason(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, where a folder should be")
    folder = RemoteFolder((tmp_path / "store").as_uri())
    for act in (lambda: folder.put_bytes("a", b"x"), lambda: folder.create("a", b"x"), lambda: folder.get_bytes("a")):
        with pytest.raises(RemoteError, match=rf"^{folder}/a: cannot be (written|read) \(\w+Error: "):
            act()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuchscheme://x", "no URL that fsspec can use"),
        ("simplecache::s3://bucket", "is no scheme"),
        ("://x", "is no scheme"),
    ],
)
def test_a_url_that_nothing_can_be_kept_at_is_refused(url: str, words: str) -> None:
    with pytest.raises(RemoteError, match=words):
        RemoteFolder(url).get_bytes("a")


def test_a_missing_package_is_named_as_pip_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(RemoteError, match=r"s3://bucket: needs a package .*: pip install 'specsweep\[s3\]'"):
        RemoteFolder("s3://bucket").get_bytes("a")


@pytest.mark.parametrize("url", ["sftp://alice:secret@host/x", "s3://key:sec/secret@bucket/x", "ftp://:secret@host"])
def test_a_password_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(RemoteError, match="must not hold a password") as caught:
        RemoteFolder(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sftp://alice@host/x", "sftp://host:22/a@b", "s3://bucket/a@b", "sftp://[::1]:22/x"])
def test_users_ports_and_at_signs_are_no_passwords(url: str) -> None:
    assert RemoteFolder(url).url == url
