import errno
import os
import stat
from pathlib import Path

import pytest

from course_lib import files
from course_lib.files import CannotWrite, atomic_write, cache_dir, check_writable, data_dir


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    """Oracle: the folder as seen from outside, before and after the block ends."""
    target = tmp_path / "a.bin"
    with atomic_write(target) as stream:
        stream.write(b"12")
        assert not target.exists()
    assert target.read_bytes() == b"12"
    assert leftovers(tmp_path) == ["a.bin"]


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    """Oracle: the bytes on disk."""
    with atomic_write(tmp_path / "a.txt", "w") as stream:
        stream.write("é\n像\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n像\n".encode()


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interruption_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    """Oracle: the folder before the block."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(target) as stream:
            stream.write(b"new")
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Oracle: the folder before; the disk refuses when the bytes must really reach it."""

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with (
        pytest.raises(CannotWrite, match=r"no space left.*a\.bin.*nothing was changed"),
        atomic_write(target) as stream,
    ):
        stream.write(b"new")
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_device_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the kernel's own full device, reached through a link named as the neighbour."""
    monkeypatch.setattr(files, "_beside", lambda target: tmp_path / "link")
    real_open = open
    monkeypatch.setattr("builtins.open", lambda path, mode, **options: real_open("/dev/full", "wb", **options))
    with pytest.raises(CannotWrite, match="no space left"), atomic_write(tmp_path / "a.bin") as stream:
        stream.write(b"x" * 100_000)


def test_an_error_of_the_block_keeps_its_own_words(tmp_path: Path) -> None:
    """Oracle: the very exception object."""
    own = OSError(errno.ECONNRESET, "the line broke")
    with pytest.raises(OSError, match="the line broke") as caught, atomic_write(tmp_path / "a.bin"):
        raise own
    assert caught.value is own
    assert leftovers(tmp_path) == []


def test_mode_bits_follow_the_umask_or_the_older_file(tmp_path: Path) -> None:
    """Oracle: what open() gives a new file; chmod for an old one."""
    plain, target = tmp_path / "plain", tmp_path / "a.bin"
    plain.write_bytes(b"")
    with atomic_write(target) as stream:
        stream.write(b"1")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    target.chmod(0o640)
    with atomic_write(target) as stream:
        stream.write(b"2")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """Oracle: the link is still a link and its target has the bytes."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("check", [check_writable, lambda path: atomic_write(path).__enter__()])
def test_unwritable_places_are_named(tmp_path: Path, check: object) -> None:
    """Oracle: the three ways in which a path cannot become a file (a parent that is a file holds for root too)."""
    (tmp_path / "file").write_bytes(b"")
    assert callable(check)
    with pytest.raises(CannotWrite, match="is not a folder"):
        check(tmp_path / "file" / "a.bin")
    with pytest.raises(CannotWrite, match=r"the folder .*missing does not exist"):
        check(tmp_path / "missing" / "a.bin")
    with pytest.raises(CannotWrite, match="it is a folder"):
        check(tmp_path)
    assert leftovers(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    """Oracle: the kind of the path before, which a rename would have turned into a file; also behind a link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for check in (check_writable, lambda path: atomic_write(path).__enter__()):
        with pytest.raises(CannotWrite, match=f"{name}: it is a pipe, a device or a socket; name a regular file"):
            check(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert leftovers(tmp_path) == ["link", "pipe"]


def test_check_writable_touches_nothing(tmp_path: Path) -> None:
    """Oracle: the folder before."""
    check_writable(tmp_path / "a.bin")
    assert leftovers(tmp_path) == []


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    """Oracle: the message names what came."""
    with pytest.raises(ValueError, match="got 'a'"), atomic_write(tmp_path / "a.bin", "a"):  # type: ignore[call-overload]
        pass


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the registry is where data_dir says; COURSE_CACHE rules cache_dir."""
    assert (data_dir() / "registry.json").is_file()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("COURSE_CACHE")
    assert cache_dir().name == "course_lib"


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a package installed without its data."""
    monkeypatch.setattr(files, "__file__", str(tmp_path / "course_lib" / "files.py"))
    with pytest.raises(FileNotFoundError, match="install the package again"):
        data_dir()
