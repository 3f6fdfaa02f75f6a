"""Several folders behind one login: which one a client gets, and that it gets nothing else."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshpyk.mounts.confined import Folder
from sshpyk.mounts.offers import Offer, OfferedFolder, read_offers, write_offers
from sshpyk.mounts.session import Session
from sshpyk.mounts.sftp import OPEN_CREATE, OPEN_WRITE, Request, Status
from tests.unit.mounts.client import INIT, Client, Refused, feed, strings
from tests.unit.mounts.test_confined import assert_all_refused

Visit = Callable[[], "Visitor"]


class Visitor(Client):
    """A client that has not chosen yet; ``chosen`` are the folders that were opened for it."""

    def __init__(self, offers: list[Offer]) -> None:
        self.chosen: list[Folder] = []
        self._folder = OfferedFolder(offers, self.chosen.append)
        self.session = Session(self._folder, most_handles=8)
        feed(self.session, INIT)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("code/deep", "code/inner", "data", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("code/deep", "code/inner", "code", "data", "outside"):
        (tmp_path / name / "secret").write_text(name)
    return tmp_path


@pytest.fixture
def visit(tree: Path) -> Iterator[Visit]:
    code, inner, data = (str(tree / name) for name in ("code", "code/inner", "data"))
    offers = [Offer(code, code), Offer(data, data, read_only=True), Offer(inner, inner, True)]
    visitors: list[Visitor] = []

    def begin() -> Visitor:
        visitors.append(Visitor(offers))
        return visitors[-1]

    yield begin
    for visitor in visitors:
        visitor.close()


def test_the_first_path_chooses(visit: Visit, tree: Path) -> None:
    code, data = bytes(tree / "code"), bytes(tree / "data")
    client = visit()
    assert client.names(code) == {b"deep", b"inner", b"secret"}
    client.write(code + b"/new", b"x")
    assert (tree / "code" / "new").read_bytes() == b"x"
    with pytest.raises(Refused) as refused:
        client.read(data + b"/secret")
    assert refused.value.status is Status.NO_SUCH_FILE
    assert len(client.chosen) == 1
    assert visit().read(data + b"/secret") == b"data"


def test_each_folder_has_its_own_rights(visit: Visit, tree: Path) -> None:
    with pytest.raises(Refused) as refused:
        visit().mkdir(bytes(tree / "data" / "new"))
    assert refused.value.status is Status.PERMISSION_DENIED
    visit().mkdir(bytes(tree / "code" / "new"))
    # Inside of the other, and offered for reading only.
    with pytest.raises(Refused):
        visit().mkdir(bytes(tree / "code" / "inner" / "new"))
    visitor = visit()
    visitor.mode(bytes(tree / "code"))
    visitor.mkdir(bytes(tree / "code" / "inner" / "new"))


@pytest.mark.parametrize("chosen", ["code", "data"])
def test_what_is_not_offered_is_refused_before_and_after_the_choice(
    visit: Visit, tree: Path, chosen: str
) -> None:
    ways = [tree / "outside", tree, tree / chosen / ".." / "outside"]
    client = visit()
    for path in ways:
        for kind in (Request.STAT, Request.OPENDIR, Request.READLINK, Request.REMOVE):
            with pytest.raises(Refused):
                client.ask(kind, strings(bytes(path)))
    assert client.chosen == []
    writer = visit()
    writer.mode(bytes(tree / "code"))
    writer.write = lambda path, data: None  # type: ignore[method-assign]  # it is outside, too
    for path in ways:
        assert_all_refused(writer, bytes(path))
    assert (tree / "outside" / "secret").read_text() == "outside"


def test_a_link_out_leads_nowhere(visit: Visit, tree: Path) -> None:
    (tree / "code" / "way").symlink_to(tree / "outside")
    (tree / "code" / "other").symlink_to(tree / "data")
    client = visit()
    for name in (b"way", b"other"):
        with pytest.raises(Refused):
            client.read(bytes(tree / "code") + b"/" + name + b"/secret")
    with pytest.raises(Refused):
        client.hardlink(bytes(tree / "outside" / "secret"), bytes(tree / "code" / "mine"))
    with pytest.raises(Refused):
        client.rename(bytes(tree / "code" / "secret"), bytes(tree / "outside" / "new"))


def test_the_top_tells_whose_files_these_are_and_nothing_more(visit: Visit) -> None:
    client = visit()
    assert client.mode(b".", follow=True) == client.mode(b"/") == stat.S_IFDIR | 0o500
    for attempt in (lambda: client.names(b"/"), lambda: client.mkdir(b"/new")):
        with pytest.raises(Refused):
            attempt()
    assert client.chosen == []


def test_the_first_request_may_be_to_write(visit: Visit, tree: Path) -> None:
    """Of several connections of one sshfs only the first looks before it opens."""
    handle = visit().open(bytes(tree / "code" / "new"), OPEN_WRITE | OPEN_CREATE)
    assert handle
    assert (tree / "code" / "new").exists()


def test_a_folder_that_has_gone_is_an_error_and_the_next_one_can_be_chosen(
    visit: Visit, tree: Path
) -> None:
    (tree / "data" / "secret").unlink()
    (tree / "data").rmdir()
    client = visit()
    with pytest.raises(Refused):
        client.names(bytes(tree / "data"))
    assert client.names(bytes(tree / "code"))


def test_offers_are_read_as_written(tmp_path: Path) -> None:
    offers = [Offer("/a", "/a"), Offer("/b\udcff \n,", "/b", True, True)]
    (tmp_path / "offers").write_text(write_offers(offers))
    assert read_offers(str(tmp_path / "offers")) == offers
    (tmp_path / "offers").write_text(json.dumps([{"path": "/"}]))
    with pytest.raises(ValueError, match="lists no folders"):
        read_offers(str(tmp_path / "offers"))
