"""The protocol itself: what is no SFTP ends the session, everything else is answered."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sshpyk.mounts.confined import Folder, Rights
from sshpyk.mounts.session import Session
from sshpyk.mounts.sftp import (
    LARGEST_DATA_BYTES,
    LARGEST_PACKET_BYTES,
    OPEN_CREATE,
    OPEN_READ,
    OPEN_WRITE,
    Fields,
    Reply,
    Request,
    SftpProtocolError,
    Status,
    encode_string,
)
from tests.unit.mounts.client import (
    INIT,
    NO_ATTRIBUTES,
    Client,
    Refused,
    feed,
    packet,
    strings,
    u32,
    u64,
)
from tests.unit.mounts.conftest import Serve
from tests.unit.mounts.test_confined import SECRET, fingerprint
from tests.unit.mounts.ways import EVERY_FAR_SERVER, Stage


@pytest.fixture
def session(root: Path) -> Session:
    return Session(Folder(str(root), Rights()), most_handles=8)


class TestBeginning:
    def test_the_version_and_the_extensions_are_told(self, session: Session) -> None:
        (reply,) = feed(session, INIT)
        assert reply[4] == Reply.VERSION
        assert reply[5:9] == u32(3)
        for name in (b"posix-rename", b"hardlink", b"fsync", b"statvfs", b"limits"):
            assert name + b"@openssh.com" in reply

    @pytest.mark.parametrize(
        "data",
        [
            packet(Request.STAT, strings(b"/")),
            struct.pack(">IBI", 5, Request.INIT, 2),
            struct.pack(">IBH", 3, Request.INIT, 3),
            u32(0),
            u32(LARGEST_PACKET_BYTES + 1),
            u32(0xFFFFFFFF),
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ],
    )
    def test_what_is_no_sftp_is_an_error(self, session: Session, data: bytes) -> None:
        with pytest.raises(SftpProtocolError):
            feed(session, data)


class TestMalformed:
    @pytest.mark.parametrize("kind", [kind for kind in Request if kind is not Request.INIT])
    def test_a_request_without_its_fields_is_an_error(self, client: Client, kind: int) -> None:
        with pytest.raises(SftpProtocolError):
            client.ask(kind, b"\0\0\0\xff")

    def test_a_packet_without_a_request_number_is_an_error(self, client: Client) -> None:
        with pytest.raises(SftpProtocolError):
            feed(client.session, encode_string(bytes([Request.STAT]) + b"\0\0"))

    @pytest.mark.parametrize("kind", [0, 1, 2, 21, 99, 101, 199, 201, 255])
    def test_an_unknown_request_is_unsupported(self, client: Client, kind: int) -> None:
        with pytest.raises(Refused) as refused:
            client.ask(kind, b"anything")
        assert refused.value.status is Status.OP_UNSUPPORTED

    def test_an_unknown_extension_is_unsupported(self, client: Client) -> None:
        with pytest.raises(Refused) as refused:
            client.extended(b"copy-everything@example.org", b"")
        assert refused.value.status is Status.OP_UNSUPPORTED

    def test_extended_attributes_are_skipped(self, client: Client, root: Path) -> None:
        wanted = u32(0x80000000) + u32(2) + strings(b"a", b"b", b"c", b"d")
        client.mkdir(b"folder", wanted)
        assert (root / "folder").is_dir()
        with pytest.raises(SftpProtocolError):
            client.mkdir(b"other", u32(0x80000000) + u32(0xFFFFFFFF))

    def test_the_largest_packet_arrives_in_pieces_of_any_size(
        self, client: Client, root: Path
    ) -> None:
        data = os.urandom(LARGEST_DATA_BYTES)
        handle = client.open(b"file", OPEN_WRITE | OPEN_CREATE)
        whole = packet(Request.WRITE, strings(handle) + u64(0) + strings(data))
        many = whole * 5
        replies = [
            reply
            for start in range(0, len(many), 9973)
            for reply in feed(client.session, many[start : start + 9973])
        ]
        assert len(replies) == 5
        assert (root / "file").read_bytes() == data


class TestHandles:
    def test_there_are_so_many_and_no_more(self, serve: Serve) -> None:
        client = serve(most_handles=3)
        client.write(b"file", b"")
        handles = [client.open(b"file") for _ in range(2)]
        handles.append(client.ask(Request.OPENDIR, strings(b"/"))[9:])
        for attempt in (
            lambda: client.open(b"file"),
            lambda: client.open(b"new", OPEN_WRITE | OPEN_CREATE),
            lambda: client.names(b"/"),
        ):
            with pytest.raises(Refused):
                attempt()
        assert client.mode(b"file")
        with pytest.raises(Refused):
            client.mode(b"new")
        client.close_handle(handles.pop())
        client.close_handle(client.open(b"file"))

    def test_a_closed_or_foreign_handle_names_nothing(self, client: Client) -> None:
        client.write(b"file", b"content")
        closed = client.open(b"file")
        client.close_handle(closed)
        folder = client.ask(Request.OPENDIR, strings(b"/"))[9:]
        opened = client.open(b"file")
        assert opened != closed
        for handle in (closed, folder, b"", b"x" * 300, u64(99)):
            with pytest.raises(Refused):
                client.read_from(handle)
            with pytest.raises(Refused):
                client.write_to(handle, b"x")
        with pytest.raises(Refused):
            client.ask(Request.READDIR, strings(opened))
        with pytest.raises(Refused):
            client.close_handle(closed)

    def test_closing_the_session_closes_the_files(self, client: Client) -> None:
        before = len(os.listdir("/dev/fd"))
        for number in range(20):
            client.open(b"%d" % number, OPEN_WRITE | OPEN_CREATE)
        client.session.close()
        assert len(os.listdir("/dev/fd")) == before

    def test_refused_requests_leave_no_descriptor_behind(self, serve: Serve, root: Path) -> None:
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "link").symlink_to("b/../../..")
        os.mkfifo(root / "a" / "fifo")
        for follow in (False, True):
            client = serve(follow_symlinks=follow)
            before = len(os.listdir("/dev/fd"))
            for path in (
                b"a/b/c/d",
                b"a/link/x",
                b"a/link",
                b"a/fifo",
                b"a/b",
                b"a/b/c",
                b"a" * 300,
            ):
                for kind in (Request.OPEN, Request.READLINK, Request.STAT, Request.REMOVE):
                    with_flags = u32(OPEN_READ) + NO_ATTRIBUTES
                    feed(client.session, packet(kind, strings(path) + with_flags))
            assert len(os.listdir("/dev/fd")) == before


class TestReading:
    def test_a_read_is_capped_and_ends_with_the_file(self, client: Client) -> None:
        client.write(b"file", b"x" * LARGEST_DATA_BYTES)
        handle = client.open(b"file", OPEN_READ | OPEN_WRITE)
        client.write_to(handle, b"y" * 100, LARGEST_DATA_BYTES)
        assert len(client.read_from(handle, 0, 0xFFFFFFFF)) == LARGEST_DATA_BYTES
        assert client.read_from(handle, LARGEST_DATA_BYTES, 1000) == b"y" * 100
        assert client.read_from(handle, 0, 0) == b""
        with pytest.raises(Refused) as refused:
            client.read_from(handle, LARGEST_DATA_BYTES + 100)
        assert refused.value.status is Status.EOF

    def test_replies_are_made_one_at_a_time(self, client: Client) -> None:
        """A client that asks for gigabytes and reads nothing must not fill the memory."""
        client.write(b"file", b"x" * 1000)
        handle = client.open(b"file")
        requests = packet(Request.READ, strings(handle) + u64(0) + u32(1000)) * 100
        session = client.session
        session.space()[: len(requests)] = requests
        session.received(len(requests))
        replies = 0
        while session.next_reply() is not None:
            replies += 1
        assert replies == 100


# A fuzz run: what is outside must neither change nor be seen.

# One place for all examples, so that requests can name it.
BASE = Path(tempfile.gettempdir()).resolve() / f"sshpyk-test-mounts-{os.getpid()}"
ROOT, OUTSIDE = bytes(BASE / "local"), bytes(BASE / "outside")
_NAMES = [
    b"a",
    b"b",
    b"out",
    b"up",
    b"loop",
    b"file",
    b"abs",
    b"in",
    b"..",
    b".",
    b"",
    b"\xff",
    b"n\nl",
]
paths = st.lists(st.sampled_from(_NAMES), max_size=6).map(b"/".join)
texts = st.one_of(
    paths,
    paths.map(lambda path: b"/" + path),
    st.binary(max_size=20),
    st.sampled_from(
        [b"../outside", b"/", b"..", b"../outside/secret", OUTSIDE, ROOT + b"/../outside"]
    ),
)
attributes = st.one_of(
    st.just(NO_ATTRIBUTES),
    st.integers(0, 0o7777).map(lambda mode: u32(4) + u32(mode)),
    st.integers(0, 1 << 20).map(lambda size: u32(1) + u64(size)),
    st.just(u32(8) + u32(1) + u32(2)),
)
handles = st.one_of(st.integers(1, 6).map(u64), st.binary(max_size=8))
with_path = st.tuples(
    st.sampled_from([7, 11, 13, 15, 16, 17, 19]), texts.map(lambda path: strings(path))
)
with_two = st.tuples(
    st.sampled_from([18, 20]), st.tuples(texts, texts).map(lambda pair: strings(*pair))
)
extended = st.tuples(
    st.just(200),
    st.tuples(
        st.sampled_from(
            [b"posix-rename@openssh.com", b"hardlink@openssh.com", b"statvfs@openssh.com"]
        ),
        texts,
        texts,
    ).map(lambda three: strings(*three)),
)
opening = st.tuples(
    st.just(3),
    st.tuples(texts, st.integers(0, 0x3F), attributes).map(
        lambda three: strings(three[0]) + u32(three[1]) + three[2]
    ),
)
changing = st.tuples(
    st.sampled_from([9, 14]),
    st.tuples(texts, attributes).map(lambda pair: strings(pair[0]) + pair[1]),
)
with_handle = st.tuples(
    st.sampled_from([4, 5, 6, 8, 10, 12]),
    st.tuples(handles, st.integers(0, 100), st.binary(max_size=30)).map(
        lambda three: strings(three[0]) + u64(three[1]) + strings(three[2])
    ),
)
requests = st.lists(
    st.one_of(with_path, with_two, extended, opening, changing, with_handle), max_size=30
)
FUZZ = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def fresh_tree() -> Path:
    """Make the folders of one example: outside, and a root full of links to it."""
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir(mode=0o700)
    base = BASE
    outside = base / "outside"
    (outside / "a").mkdir(parents=True)
    for folder in (outside, outside / "a"):
        (folder / "secret").write_bytes(SECRET)
        (folder / "CANARY-name").write_bytes(SECRET)
    root = base / "local"
    (root / "a" / "b").mkdir(parents=True)
    (root / "file").write_bytes(b"inside")
    (root / "out").symlink_to("../outside")
    (root / "abs").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("a/../loop")
    (root / "in").symlink_to("a/b")
    (root / "a" / "out").symlink_to("../../outside/secret")
    (root / "a" / "up").symlink_to(base)
    return root


@pytest.fixture(autouse=True)
def _no_tree_left() -> Iterator[None]:
    yield
    shutil.rmtree(BASE, ignore_errors=True)


HOST = settings(FUZZ, max_examples=15)  # by another process: an example takes as long as a login


@pytest.mark.parametrize("follow", [False, True], ids=["shown", "followed"])
@given(asked=requests)
@example(asked=[(20, strings(b"../outside", b"b")), (11, strings(b"b")), (12, strings(u64(1)))])
@FUZZ
def test_no_sequence_of_requests_reaches_outside(
    asked: list[tuple[int, bytes]], follow: bool
) -> None:
    rights = Rights(follow_symlinks=follow)
    ask_for_all(asked, lambda root: Client(root, rights, most_handles=4))


@pytest.mark.parametrize("follow", [False, True], ids=["shown", "followed"])
@EVERY_FAR_SERVER
@given(asked=requests)
@example(asked=[(20, strings(b"../outside", b"b")), (11, strings(b"b")), (12, strings(u64(1)))])
@HOST
def test_no_sequence_of_requests_reaches_outside_from_a_host(
    stage: Callable[[], Stage], asked: list[tuple[int, bytes]], follow: bool, way: str
) -> None:
    rights = Rights(follow_symlinks=follow)
    ask_for_all(asked, lambda root: stage().client(way, root, rights))


def ask_for_all(asked: list[tuple[int, bytes]], serve: Callable[[Path], Client]) -> None:
    """Ask, in a fresh tree; outside must be as before, and not be seen."""
    root = fresh_tree()
    before = fingerprint(BASE / "outside")
    names = sorted(os.listdir(BASE))
    client = serve(root)
    try:
        for kind, body in asked:
            for reply in client.exchange(packet(kind, body)):
                assert b"CANARY" not in reply
    except SftpProtocolError:
        pass
    finally:
        client.close()
    assert fingerprint(BASE / "outside") == before
    assert sorted(os.listdir(BASE)) == names


@given(pieces=st.lists(st.binary(max_size=60), max_size=8), cut=st.integers(0, 200))
@example(pieces=[u32(5) + b"\x01\0\0\0\x03", u32(1) + b"\x11"], cut=3)
@FUZZ
def test_any_bytes_are_answered_or_end_the_session(
    pieces: list[bytes], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("bytes")
    client = Client(root)
    data = b"".join(encode_string(piece) for piece in pieces)
    damaged = data[:cut] + data[cut + 1 :]
    for stream in (data, damaged):
        try:
            feed(client.session, stream)
        except SftpProtocolError:
            break
    client.close()


@given(data=st.binary(max_size=100))
def test_fields_end_where_the_packet_ends(data: bytes) -> None:
    for read in (Fields.byte, Fields.u32, Fields.u64, Fields.view, Fields.attributes):
        try:
            read(Fields(memoryview(data)))
        except SftpProtocolError:
            continue
