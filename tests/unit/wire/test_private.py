"""Private folders, in a root that others may have prepared."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from sshpyk.wire import private


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(private, "_ROOT", str(tmp_path))
    return tmp_path


def first() -> Path:
    return Path(next(private.candidates("sshpyk")))


def test_folder_is_created_for_us_alone_and_found_again(root: Path):
    folder = private.private_folder("sshpyk")
    assert folder == f"{root}/sshpyk-{os.getuid()}"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert private.private_folder("sshpyk") == folder


def test_folder_is_private_whatever_the_umask():
    before = os.umask(0)
    try:
        assert private.is_private(private.private_folder("sshpyk"))
    finally:
        os.umask(before)


def test_a_removed_folder_is_made_again():
    folder = private.private_folder("sshpyk")
    os.rmdir(folder)
    assert private.private_folder("sshpyk") == folder


def plant_symlink() -> None:
    target = first().parent / "elsewhere"
    target.mkdir(mode=0o700)
    first().symlink_to(target)


def plant_dangling_symlink() -> None:
    first().symlink_to(first().parent / "nowhere")


def plant_open_folder() -> None:
    first().mkdir()
    first().chmod(0o750)


def plant_file() -> None:
    first().touch(mode=0o600)


@pytest.mark.parametrize(
    "plant", [plant_symlink, plant_dangling_symlink, plant_open_folder, plant_file]
)
def test_what_is_not_a_private_folder_of_ours_is_passed_over(plant):
    plant()
    assert not private.is_private(str(first()))
    assert private.private_folder("sshpyk") == f"{first()}-1"


def test_a_folder_of_another_user_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    first().mkdir(mode=0o700)
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        status = real(path)
        if str(path) != str(first()):
            return status
        return os.stat_result([*status[:4], status.st_uid + 1, *status[5:10]])

    monkeypatch.setattr(private.os, "lstat", lstat)
    assert private.private_folder("sshpyk") == f"{first()}-1"


def test_names_carry_the_user(monkeypatch: pytest.MonkeyPatch, root: Path):
    monkeypatch.setattr(private.os, "getuid", lambda: 4711)
    assert list(private.candidates("sshpyk"))[:2] == [
        f"{root}/sshpyk-4711",
        f"{root}/sshpyk-4711-1",
    ]


def test_when_no_candidate_is_ours_every_path_is_named_with_its_reason():
    paths = list(private.candidates("sshpyk"))
    for path in paths:
        Path(path).touch()
    with pytest.raises(private.NoPrivateFolder) as caught:
        private.private_folder("sshpyk")
    assert all(f"{path}: exists" in str(caught.value) for path in paths)


def test_a_root_that_takes_no_folder_is_named(monkeypatch: pytest.MonkeyPatch, root: Path):
    monkeypatch.setattr(private, "_ROOT", f"{root}/missing")
    with pytest.raises(private.NoPrivateFolder, match="No such file or directory"):
        private.private_folder("sshpyk")


def test_the_lock_is_held_by_one_at_a_time():
    folder = private.private_folder("sshpyk")
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with private.folder_lock(folder):
            order.append("second")

    with private.folder_lock(folder):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_is_released_by_a_failure():
    folder = private.private_folder("sshpyk")
    with pytest.raises(ZeroDivisionError), private.folder_lock(folder):
        raise ZeroDivisionError
    with private.folder_lock(folder):
        assert os.listdir(folder) == []


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_one_on_the_next():
    """A daemon that leaves removes the folder under its lock, while another start waits for it."""
    folder = private.private_folder("sshpyk")
    locked, done = threading.Event(), threading.Event()
    fds = set(os.listdir("/dev/fd"))

    def waiting() -> None:
        with private.folder_lock(folder):
            locked.set()
            done.wait(10)

    with private.folder_lock(folder):
        thread = threading.Thread(target=waiting)
        thread.start()
        while len(set(os.listdir("/dev/fd")) - fds) < 2:  # it has opened the folder too
            pass
        os.rmdir(folder)
    assert locked.wait(10)
    assert private.is_private(folder)
    private.remove_if_empty(folder)  # does nothing: the lock is on the folder of that name
    assert os.path.isdir(folder)
    done.set()
    thread.join()


def test_the_lock_makes_a_folder_that_is_missing():
    folder = str(first())
    with private.folder_lock(folder):
        assert private.is_private(folder)


def test_the_lock_of_a_folder_that_others_may_enter_is_refused():
    plant_open_folder()
    with pytest.raises(private.NoPrivateFolder), private.folder_lock(str(first())):
        raise AssertionError("nothing happens under it")


def test_an_empty_folder_is_removed_and_a_used_one_is_kept():
    folder = private.private_folder("sshpyk")
    kept = Path(folder) / "a.sock"
    kept.touch()
    private.remove_if_empty(folder)
    assert kept.exists()
    kept.unlink()
    with private.folder_lock(folder):
        private.remove_if_empty(folder)  # somebody is about to use it
        assert os.path.isdir(folder)
    private.remove_if_empty(folder)
    assert not os.path.exists(folder)
    private.remove_if_empty(folder)  # gone already is no error
