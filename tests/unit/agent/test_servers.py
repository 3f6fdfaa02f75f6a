"""Jupyter servers in an agent's care, over a link in memory; a small program stands for Jupyter.

With the real one: ``tests/integration/test_servers.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sshpyk.agent import jupyter_app
from sshpyk.agent.book import Book
from sshpyk.agent.jupyter import JupyterServer, _cause, server_argv
from sshpyk.agent.jupyter_app import APPS, Launcher, launcher
from sshpyk.agent.jupyter_files import infos, runtime_folder, started_by_hand
from sshpyk.agent.service import Places, Service
from sshpyk.errors import KernelDied, ServerError, SshpykError
from sshpyk.wire.rpc import Rpc
from tests.unit.agent.service_bench import ServiceBench, alive, service_bench
from tests.unit.wire.harness import in_loop, short_folder, until  # noqa: F401

FAKE = Path(__file__).with_name("fake_jupyter.py")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that "has" JupyterLab and Notebook; Jupyter's folders are the test's own."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(home / "run"))
    program = home / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    return str(program)


@contextlib.asynccontextmanager
async def bench_of(folder: Path) -> AsyncIterator[ServiceBench]:
    async with service_bench(folder) as bench:
        try:
            yield bench
        finally:
            pids = [server.process.pid for server in bench.book.servers.alive.values()]
            for server in list(bench.book.servers.alive.values()):
                await server.stop(0)
            assert not any(map(alive, pids))
            await asyncio.sleep(0)


async def serve(bench: ServiceBench, python: str, **changes: Any) -> dict[str, Any]:
    params = {"server_id": "sabcd", "app": "lab", "folder": "", "python": python, "args": []}
    await bench.rpc.call("serve", **{**params, "owner": "ann@laptop", **changes})
    server_id = changes.get("server_id", "sabcd")
    for _ in range(20):
        answer = await bench.rpc.call("server_progress", server_id=server_id, wait_s=5)
        if answer["ready"]:
            return await bench.rpc.call("open_server", server_id=server_id)
    raise AssertionError("it does not listen")


def runtime_files() -> list[str]:
    return os.listdir(os.environ["JUPYTER_RUNTIME_DIR"])


@in_loop
async def test_a_server_listens_on_a_private_socket_and_its_token_is_nowhere_else(
    short_folder: Path,  # noqa: F811
    python: str,
):
    async with bench_of(short_folder) as bench:
        server = await serve(bench, python)
        path = server["target"]["path"]
        assert path.startswith(str(bench.folder))
        assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
        token = server["token"]
        assert len(token) == 48
        process = Path(f"/proc/{server['pid']}")
        for name in ("cmdline", "environ"):
            assert token.encode() not in (process / name).read_bytes()
        assert token not in "".join(one.read_text() for one in bench.logs.iterdir())
        (listed,) = (await bench.rpc.call("servers", owner="x"))["servers"]
        assert token not in str(listed)
        assert (listed["state"], listed["keep"], listed["mine"]) == ("ready", False, True)
        assert listed["folder"] == os.environ["HOME"]
        await bench.rpc.call("stop_server", server_id="sabcd", grace_s=5)
        assert not alive(server["pid"])
        assert (await bench.rpc.call("servers"))["servers"] == []
        assert runtime_files() == []
        assert not os.path.exists(os.path.dirname(path))


@in_loop
async def test_a_named_port_means_no_socket_and_the_address_is_the_servers_own(
    short_folder: Path,  # noqa: F811
    python: str,
):
    async with bench_of(short_folder) as bench:
        server = await serve(bench, python, args=["--port=0"])
        assert server["target"]["host"] == "localhost"
        assert server["target"]["port"] > 0


@in_loop
async def test_one_that_ignores_sigterm_is_killed_and_leaves_nothing(
    short_folder: Path,  # noqa: F811
    python: str,
):
    async with bench_of(short_folder) as bench:
        server = await serve(bench, python, args=["--stay"])
        await bench.rpc.call("stop_server", server_id="sabcd", grace_s=0.2)
        assert not alive(server["pid"])
        assert runtime_files() == []
        assert os.listdir(bench.folder) == ["logs"]


@in_loop
async def test_kernels_of_a_killed_server_end_with_it(short_folder: Path, python: str):  # noqa: F811
    file = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"kernel-{uuid.uuid4()}.json"
    async with bench_of(short_folder) as bench:
        server = await serve(bench, python)
        environment = {**os.environ, "JPY_PARENT_PID": str(server["pid"])}
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        kernel, job = (
            subprocess.Popen([*sleep, *words], env=environment, start_new_session=True)
            for words in ([str(file)], [])
        )
        file.write_text("{}")
        os.kill(server["pid"], signal.SIGKILL)
        assert await asyncio.to_thread(kernel.wait, 10) == -signal.SIGKILL
        assert job.poll() is None  # somebody's long job: no kernel
        job.kill()
        job.wait()
        await until(lambda: not bench.book.servers.alive)
        assert runtime_files() == []


@in_loop
async def test_the_hub_is_told_of_an_end(short_folder: Path, python: str):  # noqa: F811
    told: list[dict[str, Any]] = []

    async def ended(params: dict[str, Any]) -> dict[str, Any]:
        told.append(params)
        return {}

    async with bench_of(short_folder) as bench:
        bench.rpc = Rpc(bench.joined.hub, {"server_ended": ended})
        server = await serve(bench, python)
        os.kill(server["pid"], signal.SIGTERM)
        await until(lambda: told)
        assert (told[0]["server_id"], told[0]["status"]) == ("sabcd", 0)


@pytest.mark.parametrize("keep", [False, True])
@in_loop
async def test_release_and_a_link_that_is_given_up_end_what_is_not_kept(
    short_folder: Path,  # noqa: F811
    python: str,
    keep: bool,
):
    async with bench_of(short_folder) as bench:
        released = await serve(bench, python, keep=keep)
        left = await serve(bench, python, keep=keep, server_id="sbbbb")
        await bench.rpc.call("release_server", server_id="sabcd")
        bench.book.servers.give_up(bench.joined.agent.link.link_id)
        if keep:
            await asyncio.sleep(0.2)
            assert {*bench.book.servers.alive} == {"sabcd", "sbbbb"}
        else:
            await until(lambda: not bench.book.servers.alive)
        assert [alive(one["pid"]) for one in (released, left)] == [keep, keep]


@in_loop
async def test_a_lease_that_runs_out_ends_it(short_folder: Path, python: str):  # noqa: F811
    async with bench_of(short_folder) as bench:
        await serve(bench, python, keep=True)
        bench.book.servers.end_expired(lambda link_id: None)
        await asyncio.sleep(0.1)
        assert bench.book.servers.alive
        bench.book.servers.alive["sabcd"].note(heard_s=-1e9)
        bench.book.servers.end_expired(lambda link_id: None)
        await until(lambda: not bench.book.servers.alive)


@pytest.mark.parametrize("keep", [False, True])
@in_loop
async def test_an_agent_that_replaces_another_adopts_what_is_kept(
    short_folder: Path,  # noqa: F811
    python: str,
    keep: bool,
):
    async with bench_of(short_folder) as bench:
        server = await serve(bench, python, keep=keep)
        boot = bench.joined.agent.link.boot_id
        first = bench.book.servers.alive.pop("sabcd")  # its agent is gone
        book = Book()
        book.servers.take_over(str(bench.folder), boot, set(), alone=True)
        if keep:
            later = Service(bench.joined.agent, book, Places(str(bench.folder), str(bench.logs)))
            again = await bench.rpc.call("open_server", server_id="sabcd")
            assert again["token"] == server["token"]
            assert later
            await book.servers.alive["sabcd"].stop(5)
        assert not book.servers.alive
        await until(lambda: first.process.poll() is not None)
        book.servers.take_over(str(bench.folder), boot, set(), alone=True)
        assert runtime_files() == []
        assert os.listdir(bench.folder) == ["logs"]


@in_loop
async def test_servers_started_by_hand_are_found_opened_and_stopped(
    short_folder: Path,  # noqa: F811
    python: str,
    tmp_path: Path,
):
    token = tmp_path / "token"
    token.write_text("a-token")
    environment = {**os.environ, "JUPYTER_TOKEN_FILE": str(token)}
    by_hand = subprocess.Popen([python, "-m", "jupyterlab"], env=environment, stdout=-3)
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    (runtime / "jpserver-1.json").write_text('{"pid": 1, "port": 1, "sock": ""}')  # not ours
    (runtime / "jpserver-2.json").write_text("nonsense")
    async with bench_of(short_folder) as bench:
        await until(lambda: started_by_hand(set()))
        (found,) = (await bench.rpc.call("servers"))["servers"]
        assert (found["server_id"], found["by_hand"]) == (f"p{by_hand.pid}", True)
        opened = await bench.rpc.call("open_server", server_id=found["server_id"])
        assert opened["token"] == "a-token"
        await bench.rpc.call("release_server", server_id=found["server_id"])
        assert by_hand.poll() is None
        stopping = bench.rpc.call("stop_server", server_id=found["server_id"], grace_s=5)
        _, status = await asyncio.gather(stopping, asyncio.to_thread(by_hand.wait, 10))
        assert status == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"server_id": "../x"},
        {"app": "rm"},
        {"args": "x"},
        {"args": ["a\0b"]},
        {"python": 1},
        {"known": [1]},
        {"activate": 1},
    ],
)
@in_loop
async def test_requests_that_make_no_sense_are_refused(
    short_folder: Path,  # noqa: F811
    changes: dict[str, Any],
):
    async with bench_of(short_folder) as bench:
        with pytest.raises(ServerError, match="malformed"):
            await serve(bench, **{"python": "python3", **changes})


@in_loop
async def test_what_is_no_server_is_refused(short_folder: Path):  # noqa: F811
    async with bench_of(short_folder) as bench:
        for op in ("open_server", "server_progress"):
            with pytest.raises(SshpykError) as caught:
                await bench.rpc.call(op, server_id="s1234", wait_s=1)
            assert caught.value.code == "SERVER-GONE"
        with pytest.raises(ServerError, match="no such server"):
            await bench.rpc.call("open_server", server_id="p1")
        assert await bench.rpc.call("release_server", server_id="s1234") == {"kept": False}
        assert await bench.rpc.call("stop_server", server_id="s1234", grace_s=1) == {}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("No module named jupyterlab", "SERVER-NOT-FOUND"),
        ("Running as root is not recommended. Use --allow-root to bypass.", "SERVER-ROOT"),
        ("because port 22 is not available.", "SERVER-PORT-TAKEN"),
        ("Bad config encountered during initialization: x", "SERVER-CONFIG"),
        ("Segmentation fault", "SERVER-FAILED"),
    ],
)
@in_loop
async def test_last_words_have_a_code(short_folder: Path, python: str, words: str, code: str):  # noqa: F811
    assert _cause(words, "lab")[0] == code
    async with bench_of(short_folder) as bench:
        with pytest.raises(ServerError, match="before it listened") as caught:
            await serve(bench, python, args=["--say", words])
        assert caught.value.code == code
        assert caught.value.said == words
        assert os.listdir(bench.folder) == ["logs"]


@in_loop
async def test_lines_that_fail_are_told_and_those_that_do_not_bring_the_program(
    short_folder: Path,  # noqa: F811
    python: str,
):
    async with bench_of(short_folder) as bench:
        with pytest.raises(KernelDied, match="'false' ended with status 1") as caught:
            await serve(bench, "", activate="false", activate_s=30)
        assert caught.value.phase == "preparing the server's environment"
        bring = f"mkdir $HOME/bin; ln -s {python} $HOME/bin/python3; PATH=$HOME/bin:$PATH"
        changes = {"activate": bring, "activate_s": 30, "server_id": "sbbbb", "app": "notebook"}
        server = await serve(bench, "", **changes)
        assert server["program"] == "jupyter-notebook"


# Finding one


def test_a_command_on_path_comes_before_what_is_known(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(jupyter_app, "_login_path", lambda: [str(folder)])
    monkeypatch.setattr(jupyter_app, "_has", lambda python, module: "known" in python)
    known = tmp_path / "known"
    known.write_text("#!/bin/sh\n")
    known.chmod(0o755)
    app = APPS["lab"]
    found = launcher(app, "", "", [str(known)])
    assert found == Launcher([str(known), "-m", "jupyterlab"], str(known))
    (folder / "jupyter-lab").write_text("#!/bin/sh\n")
    (folder / "jupyter-lab").chmod(0o755)
    command = str(folder / "jupyter-lab")
    assert launcher(app, "", "", [str(known)]) == Launcher([command], command)
    named = Launcher(["~/x".replace("~", str(Path.home())), "-m", "jupyterlab"], f"{Path.home()}/x")
    assert launcher(app, "~/x", "", []) == named


def test_where_nothing_is_found_all_that_was_looked_at_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(jupyter_app, "_login_path", lambda: [str(tmp_path)])
    with pytest.raises(ServerError, match="the classic notebook was not found") as caught:
        launcher(APPS["nbclassic"], "", "", ["/not/there"])
    said = f"jupyter-nbclassic: not on the PATH of a login shell ({tmp_path})\n"
    assert caught.value.said == f"{said}{tmp_path}/python3: has no nbclassic"
    with pytest.raises(ServerError, match="was not found"):
        launcher(APPS["lab"], "python2", "", [])


def test_the_path_is_that_of_a_login_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".profile").write_text("echo junk\nPATH=/of/my/profile:$PATH\n")
    monkeypatch.setattr(jupyter_app, "login_shell", lambda: "/bin/bash")
    path = jupyter_app._login_path()
    assert "/of/my/profile" in path
    assert path[-1] == f"{tmp_path}/.local/bin"


@pytest.mark.parametrize(
    ("args", "has_socket"),
    [
        ([], True),
        (["--ServerApp.terminals_enabled=False"], True),
        (["--port", "9000"], False),
        (["--ip=0.0.0.0"], False),
        (["--ServerApp.sock=/tmp/x"], False),
    ],
)
def test_the_socket_is_ours_unless_an_address_was_named(args: list[str], has_socket: bool):
    argv = server_argv(Launcher(["jupyter-lab"], "x"), "/f", "/dir", args)
    assert ("--ServerApp.sock=/f/s" in argv) is has_socket
    assert argv[0] == "jupyter-lab"
    assert "--ServerApp.root_dir=/dir" in argv
    assert argv[len(argv) - len(args) :] == args


def test_the_network_may_be_away_for_long_unless_the_user_has_other_tornado_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    launch = Launcher(["x"], str(tmp_path / "env/bin/python"))

    def is_set(*args: str) -> bool:
        argv = server_argv(launch, "/f", "", list(args))
        return '--ServerApp.tornado_settings={"ws_ping_timeout": 604800000}' in argv

    assert is_set()
    assert not is_set("--ServerApp.tornado_settings={}")
    config = tmp_path / "env/etc/jupyter/jupyter_server_config.d/x.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"ServerApp": {}}')
    assert is_set()
    config.write_text('{"ServerApp": {"tornado_settings": {}}}')
    assert not is_set()
    config.unlink()
    own = tmp_path / "home/.jupyter/jupyter_server_config.py"
    own.parent.mkdir(parents=True)
    own.write_text("c.ServerApp.tornado_settings = {'headers': {}}")
    assert not is_set()


def test_runtime_folder_is_jupyters():
    assert runtime_folder({"JUPYTER_RUNTIME_DIR": "/r"}) == "/r"
    assert runtime_folder({"JUPYTER_DATA_DIR": "/d"}) == "/d/runtime"
    share = {"XDG_DATA_HOME": "/x", "HOME": "/h"}
    expected = "/h/Library/Jupyter" if sys.platform == "darwin" else "/x/jupyter"
    assert runtime_folder(share) == f"{expected}/runtime"


def test_files_that_make_no_sense_are_passed_over(tmp_path: Path):
    good = '{"pid": 5, "port": 8888, "hostname": "0.0.0.0", "sock": "", "token": "t"}'
    for number, text in enumerate((good, "{", "[]", '{"pid": 1}', '{"pid": 1, "port": 99999}')):
        (tmp_path / f"jpserver-{number}.json").write_text(text)
    (tmp_path / "jpserver-x.json").write_text(good)
    (found,) = infos(str(tmp_path), str(tmp_path), "/not/there")
    assert (found.pid, str(found.endpoint)) == (5, "localhost:8888")


def test_a_server_has_the_name_of_its_application():
    assert JupyterServer.title.fget is not None
    assert APPS["lab"].title == "JupyterLab"
