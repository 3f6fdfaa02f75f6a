"""What is outside the folder stays out of reach: one test per way out that anybody has thought of."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.mounts.sftp import (
    OPEN_APPEND,
    OPEN_CREATE,
    OPEN_EXCLUSIVE,
    OPEN_READ,
    OPEN_TRUNCATE,
    OPEN_WRITE,
    Request,
    Status,
)
from tests.unit.mounts.client import (
    NO_ATTRIBUTES,
    Client,
    Refused,
    owner,
    permissions,
    size,
    strings,
    times,
    u32,
)
from tests.unit.mounts.conftest import Serve
from tests.unit.mounts.ways import EVERY_SERVER, OBJECT

SECRET = b"CANARY: not for the host"
EVERY_WAY = pytest.mark.parametrize("follow", [False, True], ids=["shown", "followed"])


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A neighbour of the root, which must be as it was afterwards."""
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    (folder / "deep" / "secret").write_bytes(SECRET)
    before = fingerprint(folder)
    yield folder
    assert fingerprint(folder) == before


def fingerprint(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        # A second name for a file of outside, made anywhere, would be seen in nlink.
        links = status.st_nlink
        found[str(path)] = (status.st_mode, status.st_mtime_ns, links, content)
    return found


def ways_out(outside: Path) -> dict[str, bytes]:
    """Return links that lead outside: what they are called here, and their text."""
    up = b"../outside"
    return {
        "absolute": bytes(outside),
        "relative": up,
        "by way of the root's name": bytes(outside.parent / "local") + b"/../outside",
        "twice": b"./sub/../../outside",
        "to everything": b"/",
        "to the parent": b"..",
        "far up": b"../" * 60,
        "through proc": b"/proc/self/root" + bytes(outside),
    }


def walk_step_by_step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system offer no openat2; that of another process cannot be told so."""
    if request.node.callspec.params["serve"] != OBJECT:
        pytest.skip("the walk of another process is the system's choice")
    monkeypatch.setattr("sshpyk.mounts.openat2.open_folder", lambda: None)


def attempts(client: Client, folder: bytes) -> dict[str, Callable[[], object]]:
    """Return everything that could touch ``secret`` or the folder of it that ``folder`` leads to."""
    secret = folder + b"/secret"
    client.write(b"/mine", b"mine")
    return {
        "read": lambda: client.read(secret),
        "write": lambda: client.open(secret, OPEN_WRITE),
        "truncate by opening": lambda: client.open(secret, OPEN_WRITE | OPEN_TRUNCATE),
        "append": lambda: client.open(secret, OPEN_WRITE | OPEN_APPEND),
        "create": lambda: client.open(folder + b"/new", OPEN_WRITE | OPEN_CREATE),
        "create only": lambda: client.open(
            folder + b"/new", OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE
        ),
        "stat": lambda: client.mode(secret, follow=True),
        "lstat": lambda: client.mode(secret),
        "list": lambda: client.names(folder + b"/deep"),
        "truncate": lambda: client.setstat(secret, size(0)),
        "chmod": lambda: client.setstat(secret, permissions(0o777)),
        "touch": lambda: client.setstat(secret, times(1, 1)),
        "lsetstat": lambda: client.extended(
            b"lsetstat@openssh.com", strings(secret) + permissions(0o777)
        ),
        "remove": lambda: client.remove(secret),
        "mkdir": lambda: client.mkdir(folder + b"/new"),
        "rmdir": lambda: client.rmdir(folder + b"/deep"),
        "take": lambda: client.rename(secret, b"/taken"),
        "take by replacing": lambda: client.replace(secret, b"/taken"),
        "give": lambda: client.rename(b"/mine", folder + b"/given"),
        "give by replacing": lambda: client.replace(b"/mine", secret),
        "link in": lambda: client.hardlink(secret, b"/taken"),
        "link out": lambda: client.hardlink(b"/mine", folder + b"/given"),
        "symlink": lambda: client.symlink(b"x", folder + b"/given"),
        "readlink": lambda: client.readlink(secret),
        "statvfs": lambda: client.extended(b"statvfs@openssh.com", strings(secret)),
    }


def assert_all_refused(client: Client, folder: bytes) -> None:
    for what, attempt in attempts(client, folder).items():
        with pytest.raises(Refused) as refused:
            pytest.fail(f"{what} through {folder!r} was allowed: {attempt()!r}")
        assert refused.value.status in (
            Status.NO_SUCH_FILE,
            Status.PERMISSION_DENIED,
            Status.FAILURE,
        )


@EVERY_SERVER
class TestPaths:
    @EVERY_WAY
    def test_the_parent_of_the_root_is_the_root(
        self, serve: Serve, root: Path, outside: Path, follow: bool
    ) -> None:
        (root / "sub").mkdir()
        client = serve(follow_symlinks=follow)
        ups = [b"..", b"/..", b"../..", b"/../../..", b"sub/../..", b"/sub/../../"]
        for path in (*ups, b"", b".", b"/", b"//"):
            assert client.realpath(path) == b"/", path
            assert client.names(path) == {b"sub"}, path

    @EVERY_WAY
    @pytest.mark.parametrize("start", [b"/../outside", b"..//outside", b"sub/../../outside"])
    def test_dots_do_not_lead_to_a_neighbour(
        self, serve: Serve, outside: Path, start: bytes, follow: bool
    ) -> None:
        assert_all_refused(serve(follow_symlinks=follow), start)

    @EVERY_WAY
    def test_an_absolute_path_counts_from_the_root(
        self, serve: Serve, outside: Path, follow: bool
    ) -> None:
        assert_all_refused(serve(follow_symlinks=follow), bytes(outside))

    def test_a_path_that_no_file_can_have_is_refused(self, client: Client) -> None:
        for path in (b"a\0b", b"/\0", b"\0/../../etc", b"x" * 5000, b"x/" * 3000):
            for attempt in (client.read, client.remove, client.names, client.readlink):
                with pytest.raises(Refused):
                    attempt(path)
        with pytest.raises(Refused):
            client.symlink(b"t\0t", b"/name")

    def test_the_root_itself_cannot_be_removed_or_moved(self, client: Client, root: Path) -> None:
        for attempt in (
            lambda: client.rmdir(b"/"),
            lambda: client.remove(b"."),
            lambda: client.replace(b"/", b"/x"),
            lambda: client.rename(b"/x", b"/.."),
            lambda: client.mkdir(b"/"),
        ):
            with pytest.raises(Refused):
                attempt()
        assert root.is_dir()

    def test_the_parents_attributes_are_the_roots_own(self, client: Client, root: Path) -> None:
        root.chmod(0o751)
        entries = {entry.name: entry for entry in client.list(b"/")}
        assert stat.S_IMODE(entries[b".."].mode) == 0o751


@EVERY_SERVER
class TestLinksThatWereThere:
    @EVERY_WAY
    def test_a_folder_link_leads_nowhere_outside(
        self, serve: Serve, root: Path, outside: Path, follow: bool
    ) -> None:
        (root / "sub").mkdir()
        client = serve(follow_symlinks=follow)
        for name, target in ways_out(outside).items():
            os.symlink(target, bytes(root) + b"/" + name.encode())
            prefix = name.encode()
            if name in ("to everything", "far up"):
                prefix += bytes(outside)
            elif name == "to the parent":
                prefix += b"/outside"
            assert_all_refused(client, prefix)

    @EVERY_WAY
    @pytest.mark.parametrize(
        "way", [OPEN_READ, OPEN_WRITE, OPEN_WRITE | OPEN_CREATE | OPEN_TRUNCATE]
    )
    def test_a_file_link_is_not_opened(
        self, serve: Serve, root: Path, outside: Path, way: int, follow: bool
    ) -> None:
        (root / "absolute").symlink_to(outside / "secret")
        (root / "relative").symlink_to("../outside/secret")
        (root / "dangling").symlink_to("../outside/new")
        (root / "chain").symlink_to("relative")
        client = serve(follow_symlinks=follow)
        for name in (b"absolute", b"relative", b"dangling", b"chain"):
            with pytest.raises(Refused):
                client.open(name, way)

    @EVERY_WAY
    def test_attributes_of_what_a_link_names_are_not_changed(
        self, serve: Serve, root: Path, outside: Path, follow: bool
    ) -> None:
        (root / "link").symlink_to(outside / "secret")
        client = serve(follow_symlinks=follow)
        wishes = [size(0), permissions(0o777)]
        # Of a link itself the times may be set.
        wishes += [times(1, 1)] if follow else []
        for wanted in wishes:
            with pytest.raises(Refused):
                client.setstat(b"link", wanted)
        with pytest.raises(Refused):
            client.extended(b"lsetstat@openssh.com", strings(b"link") + permissions(0o777))
        client.extended(b"lsetstat@openssh.com", strings(b"link") + times(1, 1))
        assert (root / "link").lstat().st_mtime == 1

    @pytest.mark.parametrize("stepwise", [False, True], ids=["in one call", "step by step"])
    def test_a_link_several_folders_deep_leads_nowhere(
        self,
        root: Path,
        outside: Path,
        stepwise: bool,
        serve: Serve,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if stepwise:
            walk_step_by_step(request, monkeypatch)
        (root / "a" / "b" / "c").mkdir(parents=True)
        (root / "a" / "b" / "c" / "relative").symlink_to("../../../../outside")
        (root / "a" / "b" / "c" / "absolute").symlink_to(outside)
        client = serve()
        client.write(b"a/b/c/file", b"inside")
        assert client.read(b"/a//b/./c/../c/file") == b"inside"
        for name in (b"relative", b"absolute"):
            assert_all_refused(client, b"a/b/c/" + name)

    def test_links_are_shown_as_links(self, client: Client, root: Path, outside: Path) -> None:
        (root / "link").symlink_to(outside / "secret")
        assert stat.S_ISLNK(client.mode(b"link"))
        assert stat.S_ISLNK(client.mode(b"link", follow=True))
        assert client.readlink(b"link") == bytes(outside / "secret")
        (entry,) = [entry for entry in client.list(b"/") if entry.name == b"link"]
        assert stat.S_ISLNK(entry.mode)
        client.remove(b"link")
        assert not (root / "link").is_symlink()


@EVERY_SERVER
class TestLinksMadeThroughTheMount:
    @EVERY_WAY
    def test_a_new_symlink_opens_no_way(self, serve: Serve, outside: Path, follow: bool) -> None:
        client = serve(follow_symlinks=follow)
        for name, target in ways_out(outside).items():
            if "outside" in target.decode():
                client.symlink(target, name.encode())
                assert_all_refused(client, name.encode())

    @EVERY_WAY
    def test_a_hard_link_to_a_symlink_is_a_symlink(
        self, serve: Serve, root: Path, outside: Path, follow: bool
    ) -> None:
        client = serve(follow_symlinks=follow)
        client.symlink(bytes(outside / "secret"), b"link")
        client.hardlink(b"link", b"second")
        assert (root / "second").is_symlink()
        with pytest.raises(Refused):
            client.read(b"second")

    def test_a_rename_moves_a_link_and_not_what_it_names(
        self, client: Client, root: Path, outside: Path
    ) -> None:
        client.symlink(bytes(outside / "secret"), b"link")
        client.rename(b"link", b"moved")
        assert os.readlink(root / "moved") == str(outside / "secret")
        client.write(b"mine", b"mine")
        client.replace(b"mine", b"moved")
        assert (root / "moved").read_bytes() == b"mine"

    def test_a_folder_moved_beneath_its_links_takes_them_along(
        self, serve: Serve, root: Path, outside: Path
    ) -> None:
        """``a/b/link -> ../../x`` is inside; one level up it would be outside."""
        client = serve(follow_symlinks=True)
        client.mkdir(b"a")
        client.mkdir(b"a/b")
        client.write(b"x", b"inside")
        client.symlink(b"../../x", b"a/b/link")
        assert client.read(b"a/b/link") == b"inside"
        client.symlink(b"../../outside/secret", b"a/b/secret")
        client.rename(b"a/b", b"b")
        for name in (b"b/link", b"b/secret"):
            with pytest.raises(Refused):
                client.read(name)


class TestFollowing:
    @pytest.mark.parametrize(
        "target",
        [b"real", b"./sub/../real", b"/ROOT/real", b"sub/back", b"hop", b"//ROOT//sub/../real"],
    )
    def test_a_link_inside_is_followed(self, serve: Serve, root: Path, target: bytes) -> None:
        (root / "real").write_bytes(b"content")
        (root / "sub").mkdir()
        (root / "sub" / "back").symlink_to("../real")
        (root / "hop").symlink_to("sub/back")
        (root / "aside").symlink_to("sub")
        os.symlink(target.replace(b"/ROOT", bytes(root)), bytes(root / "link"))
        client = serve(follow_symlinks=True)
        assert client.read(b"link") == b"content"
        assert client.read(b"aside/back") == b"content"
        assert stat.S_ISREG(client.mode(b"link", follow=True))
        assert stat.S_ISLNK(client.mode(b"link"))
        client.setstat(b"link", permissions(0o600))
        assert stat.S_IMODE((root / "real").stat().st_mode) == 0o600
        client.write(b"link", b"through")
        assert (root / "real").read_bytes() == b"through"

    def test_a_link_to_the_root_is_the_root(self, serve: Serve, root: Path) -> None:
        (root / "sub").mkdir()
        (root / "absolute").symlink_to(root)
        (root / "sub" / "up").symlink_to("..")
        (root / "dot").symlink_to(".")
        client = serve(follow_symlinks=True)
        for name in (b"absolute", b"sub/up", b"dot", b"absolute/sub/up/dot"):
            assert client.names(name) == {b"absolute", b"sub", b"dot"}

    def test_dots_after_a_link_count_from_where_it_led(self, serve: Serve, root: Path) -> None:
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "target").write_bytes(b"of a")
        (root / "target").write_bytes(b"of the root")
        (root / "into").symlink_to("a/b")
        (root / "link").symlink_to("into/../target")
        assert serve(follow_symlinks=True).read(b"link") == b"of a"

    def test_a_circle_ends(self, serve: Serve, root: Path) -> None:
        (root / "self").symlink_to("self")
        (root / "a").symlink_to("b/x")
        (root / "b").symlink_to("a/x")
        (root / "growing").symlink_to("growing/x")
        client = serve(follow_symlinks=True)
        for name in (b"self", b"a", b"b", b"growing", b"self/x"):
            with pytest.raises(Refused):
                client.read(name)

    def test_a_link_of_two_thousand_steps_costs_little(self, serve: Serve, root: Path) -> None:
        (root / "d").mkdir()
        long = b"d/../" * 800
        for number in range(30):
            os.symlink(long + b"link%d" % (number + 1), bytes(root / f"link{number}"))
        client = serve(follow_symlinks=True)
        began_s = time.monotonic()
        with pytest.raises(Refused):
            client.read(b"link0")
        assert time.monotonic() - began_s < 5

    def test_exclusive_creation_does_not_follow(self, serve: Serve, root: Path) -> None:
        (root / "link").symlink_to("new")
        with pytest.raises(Refused):
            serve(follow_symlinks=True).open(b"link", OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE)
        assert not (root / "new").exists()


WALKS = pytest.mark.parametrize(
    ("follow", "stepwise"),
    [(False, False), (False, True), (True, True)],
    ids=["in one call", "step by step", "followed"],
)


@EVERY_SERVER
class TestRaces:
    """Something inside is exchanged with a link to the outside, again and again, while we look."""

    @WALKS
    def test_a_folder_swapped_for_a_link_is_never_entered(
        self,
        root: Path,
        outside: Path,
        follow: bool,
        stepwise: bool,
        serve: Serve,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if stepwise:
            walk_step_by_step(request, monkeypatch)
        client = serve(follow_symlinks=follow)
        deep = root / "deep"
        (deep / "door").mkdir(parents=True)
        (deep / "door" / "secret").write_bytes(b"harmless")
        (deep / "spare").symlink_to(outside)
        seen = set()
        with swapping(deep / "door", deep / "spare", deep / "third"):
            deadline_s = time.monotonic() + 1.5
            while time.monotonic() < deadline_s:
                seen.add(outcome(lambda: client.read(b"deep/door/secret")))
                outcome(lambda: client.write(b"deep/door/new", b"x"))
                outcome(lambda: client.names(b"deep/door"))
                outcome(lambda: client.setstat(b"deep/door/secret", permissions(0o600)))
                outcome(lambda: client.remove(b"deep/door/new"))
        assert SECRET not in seen
        assert b"harmless" in seen  # else nothing was tried

    @EVERY_WAY
    def test_a_file_swapped_for_a_link_is_never_opened(
        self, serve: Serve, root: Path, outside: Path, follow: bool
    ) -> None:
        client = serve(follow_symlinks=follow)
        (root / "door").write_bytes(b"harmless")
        (root / "spare").symlink_to(outside / "secret")
        seen = set()
        with swapping(root / "door", root / "spare", root / "third"):
            deadline_s = time.monotonic() + 1.5
            while time.monotonic() < deadline_s:
                seen.add(outcome(lambda: client.read(b"door")))
                outcome(lambda: client.setstat(b"door", permissions(0o644)))
                outcome(lambda: client.setstat(b"door", size(8)))
                outcome(lambda: client.close_handle(client.open(b"door", OPEN_WRITE)))
        assert SECRET not in seen
        assert b"harmless" in seen


def outcome(attempt: Callable[[], object]) -> object:
    try:
        return attempt()
    except Refused as refused:
        return refused.status


class swapping:  # noqa: N801  # reads as what it does
    """Exchange two names in a thread until the ``with`` ends."""

    def __init__(self, one: Path, other: Path, spare: Path) -> None:
        self._names = one, other, spare
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._swap)

    def _swap(self) -> None:
        one, other, spare = self._names
        while not self._stop.is_set():
            os.rename(one, spare)
            os.rename(other, one)
            os.rename(spare, other)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@EVERY_SERVER
class TestReadOnly:
    def test_every_change_is_refused(self, serve: Serve, root: Path) -> None:
        (root / "file").write_bytes(b"as it was")
        (root / "folder").mkdir()
        before = fingerprint(root)
        client = serve(read_only=True)
        handle = client.open(b"file")
        for attempt in (
            lambda: client.open(b"file", OPEN_WRITE),
            lambda: client.open(b"file", OPEN_READ | OPEN_WRITE),
            lambda: client.open(b"file", OPEN_READ | OPEN_TRUNCATE),
            lambda: client.open(b"new", OPEN_READ | OPEN_CREATE),
            lambda: client.open(b"file", OPEN_APPEND),
            lambda: client.write_to(handle, b"x"),
            lambda: client.ask(Request.FSETSTAT, strings(handle) + permissions(0o777)),
            lambda: client.ask(Request.FSETSTAT, strings(handle) + times(1, 1)),
            lambda: client.setstat(b"file", permissions(0o777)),
            lambda: client.setstat(b"file", times(1, 1)),
            lambda: client.setstat(b"file", size(0)),
            lambda: client.setstat(b"file", NO_ATTRIBUTES),
            lambda: client.extended(b"lsetstat@openssh.com", strings(b"file") + times(1, 1)),
            lambda: client.remove(b"file"),
            lambda: client.mkdir(b"new"),
            lambda: client.rmdir(b"folder"),
            lambda: client.rename(b"file", b"new"),
            lambda: client.replace(b"file", b"new"),
            lambda: client.hardlink(b"file", b"new"),
            lambda: client.symlink(b"file", b"new"),
        ):
            with pytest.raises(Refused):
                attempt()
        assert fingerprint(root) == before
        assert client.read(b"file") == b"as it was"
        assert client.names(b"/") == {b"file", b"folder"}


@EVERY_SERVER
class TestWhatIsNoFile:
    @pytest.mark.parametrize("way", [OPEN_READ, OPEN_WRITE, OPEN_READ | OPEN_WRITE | OPEN_CREATE])
    def test_a_fifo_is_refused_without_waiting(self, client: Client, root: Path, way: int) -> None:
        os.mkfifo(root / "fifo")
        with pytest.raises(Refused):
            client.open(b"fifo", way)
        assert stat.S_ISFIFO(client.mode(b"fifo"))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
    def test_a_device_is_not_opened(self, client: Client, root: Path) -> None:
        os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        for way in (OPEN_READ, OPEN_WRITE):
            with pytest.raises(Refused):
                client.open(b"zero", way)

    def test_a_folder_is_not_opened_as_a_file_nor_the_other_way(
        self, client: Client, root: Path
    ) -> None:
        (root / "folder").mkdir()
        (root / "file").touch()
        with pytest.raises(Refused):
            client.open(b"folder")
        with pytest.raises(Refused):
            client.names(b"file")
        with pytest.raises(Refused):
            client.names(b"file/x")
        with pytest.raises(Refused):
            client.setstat(b"folder", size(0))


@EVERY_SERVER
class TestAttributes:
    def test_no_program_that_runs_as_its_owner_is_made(self, client: Client, root: Path) -> None:
        client.write(b"file", b"#!/bin/sh")
        for mode in (0o4755, 0o2755, 0o6777):
            with pytest.raises(Refused) as refused:
                client.setstat(b"file", permissions(mode))
            assert refused.value.status is Status.PERMISSION_DENIED
            handle = client.open(b"file", OPEN_WRITE)
            with pytest.raises(Refused):
                client.ask(Request.FSETSTAT, strings(handle) + permissions(mode))
            client.open(b"new%o" % mode, OPEN_WRITE | OPEN_CREATE, permissions(mode))
            assert not (root / f"new{mode:o}").stat().st_mode & 0o7000
        assert stat.S_IMODE((root / "file").stat().st_mode) & 0o7000 == 0

    def test_modes_and_times_are_set(self, client: Client, root: Path) -> None:
        client.write(b"file", b"0123456789")
        client.setstat(b"file", permissions(0o100640))
        client.setstat(b"file", size(4))
        client.setstat(b"file", times(1_000_000_000, 1_100_000_000))
        status = (root / "file").stat()
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert (status.st_size, status.st_atime, status.st_mtime) == (4, 1e9, 1.1e9)
        handle = client.open(b"file", OPEN_WRITE)
        wanted = u32(0x0D) + b"\0" * 7 + b"\x02" + u32(0o600) + u32(5) + u32(6)
        client.ask(Request.FSETSTAT, strings(handle) + wanted)
        status = (root / "file").stat()
        assert (status.st_size, stat.S_IMODE(status.st_mode), status.st_mtime) == (2, 0o600, 6)

    def test_a_file_that_may_not_be_read_gets_other_permissions(
        self, client: Client, root: Path
    ) -> None:
        (root / "file").touch(0o000)
        client.setstat(b"file", permissions(0o644))
        assert stat.S_IMODE((root / "file").stat().st_mode) == 0o644

    def test_to_keep_the_owner_is_all_right_and_to_change_it_is_not(
        self, client: Client, root: Path
    ) -> None:
        client.write(b"file", b"")
        client.setstat(b"file", owner(os.getuid(), (root / "file").stat().st_gid))
        for user, group in ((os.getuid() + 1, os.getgid()), (os.getuid(), 54321), (0, 0xFFFFFFFF)):
            with pytest.raises(Refused) as refused:
                client.setstat(b"file", owner(user, group))
            assert refused.value.status is Status.PERMISSION_DENIED
        assert (root / "file").stat().st_uid == os.getuid()

    def test_a_size_that_no_file_can_have_is_refused(self, client: Client) -> None:
        client.write(b"file", b"x")
        with pytest.raises(Refused):
            client.setstat(b"file", size((1 << 64) - 1))
        handle = client.open(b"file", OPEN_READ | OPEN_WRITE)
        for offset in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            with pytest.raises(Refused):
                client.write_to(handle, b"x", offset)
            with pytest.raises(Refused):
                client.read_from(handle, offset)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "grün 東京 🎉".encode(),
            b"new\nline",
            b"back\\slash",
            b"\xff\xfe not UTF-8",
            b" ",
            b"-rf",
            b"...",
            b"%2e%2e",
            b"..\\..\\x",
            b"n" * 255,
        ],
    )
    def test_an_odd_name_is_a_name(self, client: Client, root: Path, name: bytes) -> None:
        client.write(name, b"content")
        assert os.listdir(bytes(root)) == [name]
        assert client.names(b"/") == {name}
        assert client.read(b"/" + name) == b"content"
        client.mkdir(b"folder")
        client.rename(name, b"folder/" + name)
        assert client.realpath(b"folder/./" + name) == b"/folder/" + name
        client.symlink(name, b"folder/link")
        assert client.readlink(b"folder/link") == name
        client.remove(b"folder/" + name)

    def test_a_plain_rename_replaces_nothing(self, client: Client, root: Path) -> None:
        for name in (b"one", b"other"):
            client.write(name, name)
            client.mkdir(name + b" folder")
        with pytest.raises(Refused):
            client.rename(b"one", b"other")
        with pytest.raises(Refused):
            client.rename(b"one folder", b"other folder")
        assert (root / "other").read_bytes() == b"other"
        client.rename(b"one folder", b"third folder")
        client.replace(b"one", b"other")
        assert client.names(b"/") == {b"other", b"other folder", b"third folder"}
        assert client.read(b"other") == b"one"


class TestContents:
    def test_beyond_four_gigabytes_of_a_sparse_file(self, client: Client, root: Path) -> None:
        far = 5 * (1 << 30) + 3
        handle = client.open(b"sparse", OPEN_READ | OPEN_WRITE | OPEN_CREATE)
        client.write_to(handle, b"the end", far)
        assert client.read_from(handle, far) == b"the end"
        assert client.read_from(handle, far - 2, 4) == b"\0\0th"
        assert (root / "sparse").stat().st_size == far + 7
        (entry,) = [entry for entry in client.list(b"/") if entry.name == b"sparse"]
        assert entry.size == far + 7
        assert (root / "sparse").stat().st_blocks * 512 < 1 << 20

    def test_appending_ignores_the_offset(self, client: Client, root: Path) -> None:
        client.write(b"log", b"one\n")
        handle = client.open(b"log", OPEN_WRITE | OPEN_APPEND)
        client.write_to(handle, b"two\n", 0)
        with (root / "log").open("ab") as log:
            log.write(b"three\n")
        client.write_to(handle, b"four\n", 0)
        assert client.read(b"log") == b"one\ntwo\nthree\nfour\n"

    def test_ten_thousand_entries_are_listed_once_each(self, client: Client, root: Path) -> None:
        expected = {b"file-%05d" % number for number in range(10_000)}
        for name in expected:
            os.close(os.open(bytes(root) + b"/" + name, os.O_CREAT | os.O_WRONLY))
        listed = [entry.name for entry in client.list(b"/")]
        assert len(listed) == len(set(listed)) == 10_002
        assert client.names(b"/") == expected

    def test_a_folder_that_changes_while_it_is_listed(self, client: Client, root: Path) -> None:
        for number in range(3000):
            (root / f"stays-{number}").touch()
            (root / f"goes-{number}").touch()
        handle = client.ask(Request.OPENDIR, strings(b"/"))[9:]
        client.ask(Request.READDIR, strings(handle))
        for number in range(3000):
            (root / f"goes-{number}").unlink()
            (root / f"new-{number}").touch()
        rest = client.rest_of(handle)
        assert len({entry.name for entry in rest}) == len(rest) > 0
        names = client.names(b"/")
        assert {b"%s-%d" % (kind, n) for kind in (b"stays", b"new") for n in range(3000)} == names

    def test_a_folder_removed_beneath_the_client_is_an_error_and_no_end(
        self, client: Client, root: Path
    ) -> None:
        (root / "file").write_bytes(b"x")
        handle = client.open(b"file")
        (root / "file").unlink()
        root.rmdir()
        assert client.read_from(handle) == b"x"
        for attempt in (
            lambda: client.read(b"file"),
            lambda: client.write(b"new", b""),
            lambda: client.mkdir(b"new"),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.status is Status.NO_SUCH_FILE

    def test_space_is_what_the_file_system_says(self, client: Client, root: Path) -> None:
        (root / "file").touch()
        for path in (b"/", b"file"):
            reply = client.extended(b"statvfs@openssh.com", strings(path))
            assert int.from_bytes(reply[21:29], "big") == os.statvfs(root).f_blocks
