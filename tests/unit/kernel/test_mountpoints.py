"""Places for mounts in a root that cannot be written, and what is mounted there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nsk8s.errors import HostError
from nsk8s.kernel.mountpoints import HOST, Mount, View, bound


def pairs(words: Iterator[str]) -> list[tuple[str, ...]]:
    """Words as options with their arguments."""
    found: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word,))
        else:
            found[-1] += (word,)
    return found


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the host's with a file, a directory and a symbolic link."""
    directory = tmp_path.resolve() / "there"
    (directory / "sub").mkdir(parents=True)
    (directory / "file").touch()
    (directory / "link").symlink_to("file")
    return directory


def test_what_exists_needs_no_place(there: Path) -> None:
    view = View([str(there / "sub")], [str(there / "file")], [])
    assert pairs(view.root()) == [("--ro-bind", "/", "/")]
    assert pairs(view.rest()) == pairs(view.closing()) == []


def test_a_directory_is_made_anew_around_a_place(there: Path) -> None:
    view = View([f"{there}/new/deep"], [], [])
    assert pairs(view.root()) == [("--ro-bind", "/", "/")]
    made = pairs(view.rest())
    assert made[:3] == [
        ("--ro-bind", str(there), f"{HOST}{there}"),
        ("--perms", "0755"),
        ("--tmpfs", str(there)),
    ]
    assert sorted(made[3:]) == [
        ("--symlink", f"{HOST}{there}/file", f"{there}/file"),
        ("--symlink", f"{HOST}{there}/sub", f"{there}/sub"),
        ("--symlink", "file", f"{there}/link"),
    ]
    assert pairs(view.closing()) == [("--remount-ro", str(there))]
    assert view.where(f"{there}/file") == f"{HOST}{there}/file"
    assert view.where("/etc/passwd") == "/etc/passwd"


def test_what_is_mounted_over_stays_no_symbolic_link(there: Path) -> None:
    (there / "sub" / "below").mkdir()
    view = View([f"{there}/new", f"{there}/sub/below"], [f"{there}/file"], [])
    linked = {words[2] for words in pairs(view.rest()) if words[0] == "--symlink"}
    assert linked == {f"{there}/link"}
    assert ("--tmpfs", f"{there}/sub") in pairs(view.rest())


def test_a_place_at_the_top_is_made_among_bind_mounts() -> None:
    view = View(["/surely-not-there"], [], ["/tmp"])
    bound_to = {words[2] for words in pairs(view.root()) if words[0] == "--ro-bind"}
    assert "/etc" in bound_to
    assert not bound_to & {"/tmp", "/proc", "/dev"}
    assert pairs(view.closing()) == [("--remount-ro", "/")]


def test_private_directories_need_no_place() -> None:
    view = View(["/tmp/x/y"], [], ["/tmp"])
    assert pairs(view.root()) == [("--ro-bind", "/", "/")]


# --- mounts -----------------------------------------------------------------------------------------------


def test_a_sub_path_is_made_and_leads_nowhere_else(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ((_, fd),) = bound([Mount("/data", str(tmp_path), "a/b")], stack)
        assert os.path.samestat(os.fstat(fd), (tmp_path / "a" / "b").stat())
    (tmp_path / "link").symlink_to("/etc")
    for inner in ("link", "link/x", "../x"):
        with pytest.raises(HostError, match="failed to prepare subPath"):
            Mount("/data", str(tmp_path), inner).open()


def test_one_mount_inside_another_finds_its_place(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "file").touch()
    mounts = [
        Mount("/data/x/file", str(inner), "file"),
        Mount("/data/deep/er", str(inner)),
        Mount("/data", str(outer)),
    ]
    with ExitStack() as stack:
        assert next(iter(bound(mounts, stack)))[0].path == "/data"
    assert (outer / "x" / "file").is_file()
    assert (outer / "deep" / "er").is_dir()
