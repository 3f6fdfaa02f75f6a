"""Every kind of Jupyter message between a client on the laptop and a kernel on the remote.

What a client sends arrives as it was sent and what the kernel says comes back as it was said, in
order, whole and once: text, errors, displays, input, comms with buffers, questions about code.
"""
# ruff: noqa: F401, F811

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

import pytest
import zmq

from tests.integration.kernels import (
    PATIENCE_S,
    Message,
    Outcome,
    Running,
    add_kernel,
    collect,
    jupyter_folders,
    kernel,
    run,
)

BUFFERS = [b"", bytes(range(256)), b"\0" * 70_000, random.Random(1).randbytes(5_000_000)]
ODD_TEXTS = {
    "unicode": "häßlich 日本 \U0001f40d é \u202e \u2028",
    "nul": "a\0b\0",
    "controls": "".join(map(chr, range(1, 32))),
    "separator": "<IDS|MSG>",
}


def send(kernel: Running, msg_type: str, content: Message, buffers: Any = None) -> str:
    """Send a shell message with buffers, which the client's own methods cannot; return its id."""
    session = kernel.client.session
    message = session.msg(msg_type, content)
    session.send(kernel.client.shell_channel.socket, message, buffers=buffers)
    msg_id: str = message["header"]["msg_id"]
    return msg_id


def ask(kernel: Running, msg_id: str) -> Message:
    """Return the content of the reply to a request."""
    content: Message = collect(kernel.client, msg_id).reply["content"]
    return content


def buffers_of(message: Message) -> list[bytes]:
    return [bytes(buffer) for buffer in message["buffers"]]


# Output


def test_execute_runs_on_the_remote(kernel: Running) -> None:
    code = "import socket, os, sys; (socket.gethostname(), os.getuid(), sys.prefix, os.getcwd())"
    assert kernel.run(code).result == "('remote', 1000, '/opt/venv', '/home/lab')"


def test_execute_each_kind_of_output(kernel: Running) -> None:
    code = (
        "import sys\nfrom IPython.display import HTML, display, update_display, clear_output\n"
        "print('out', flush=True)\nprint('err', file=sys.stderr, flush=True)\n"
        "display(HTML('<b>1</b>'), display_id='d')\nupdate_display(HTML('<b>2</b>'), display_id='d')\n"
        "clear_output(wait=True)\n6*7"
    )
    html = [
        {"text/plain": "<IPython.core.display.HTML object>", "text/html": f"<b>{n}</b>"}
        for n in "12"
    ]
    shown = {"metadata": {}, "transient": {"display_id": "d"}}
    outcome = kernel.run(code)
    assert outcome.sequence == [
        ("status", {"execution_state": "busy"}),
        ("execute_input", {"code": code, "execution_count": 1}),
        ("stream", {"name": "stdout", "text": "out\n"}),
        ("stream", {"name": "stderr", "text": "err\n"}),
        ("display_data", {"data": html[0], **shown}),
        ("update_display_data", {"data": html[1], **shown}),
        ("clear_output", {"wait": True}),
        ("execute_result", {"data": {"text/plain": "42"}, "metadata": {}, "execution_count": 1}),
        ("status", {"execution_state": "idle"}),
    ]
    assert outcome.reply["content"]["status"] == "ok"


def test_execute_error_brings_traceback(kernel: Running) -> None:
    outcome = kernel.run("def f():\n    1/0\nf()")
    (error,) = outcome.of_type("error")
    said = error["content"]
    assert (said["ename"], said["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "1/0" in re.sub(r"\x1b\[\d*m", "", "".join(said["traceback"]))
    reply = outcome.reply["content"]
    assert reply["status"] == "error"
    assert {key: reply[key] for key in said} == said


def test_execute_error_aborts_queued_cells(kernel: Running) -> None:
    ids = [kernel.client.execute(code, stop_on_error=True) for code in ("1/0", "1", "2")]
    replies = [kernel.client.get_shell_msg(timeout=PATIENCE_S) for _ in ids]
    assert [reply["parent_header"]["msg_id"] for reply in replies] == ids
    assert [reply["content"]["status"] for reply in replies] == ["error", "aborted", "aborted"]


def test_execute_user_expressions_and_payload(kernel: Running) -> None:
    reply = kernel.run("len?", user_expressions={"two": "1+1", "bad": "1/0"}).reply["content"]
    assert reply["user_expressions"]["two"]["data"] == {"text/plain": "2"}
    assert reply["user_expressions"]["bad"]["ename"] == "ZeroDivisionError"
    (page,) = reply["payload"]
    assert page["source"] == "page"


def test_execute_silent_shows_nothing(kernel: Running) -> None:
    outcome = kernel.run("6*7", silent=True)
    assert [kind for kind, _ in outcome.sequence] == ["status", "status"]


def test_execute_child_process_output(kernel: Running) -> None:
    assert kernel.run("!hostname; echo oops >&2").text().split() == ["remote", "oops"]


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_execute_odd_text_intact_both_ways(kernel: Running, text: str) -> None:
    literal = ascii(text)
    assert kernel.run(f"print({literal}, end='')").text() == text
    assert kernel.run(f"x = {literal}; x").result == repr(text)
    expressions = {"same": f"x == {literal}", "text": "x"}
    asked = kernel.run(f"# {text!r}\nx", user_expressions=expressions)
    assert asked.reply["content"]["user_expressions"]["same"]["data"]["text/plain"] == "True"
    assert asked.of_type("execute_input")[0]["content"]["code"] == f"# {text!r}\nx"


def test_execute_20_mb_output_whole(kernel: Running) -> None:
    code = "import random; text = random.Random(7).randbytes(10_000_000).hex(); print(text)"
    text = random.Random(7).randbytes(10_000_000).hex() + "\n"
    said = kernel.run(code).text()
    assert len(said) == len(text)
    assert hashlib.sha256(said.encode()).digest() == hashlib.sha256(text.encode()).digest()


def test_execute_20_mb_display_in_one_message(kernel: Running) -> None:
    outcome = kernel.run("display({'text/plain': 'é' * 10_000_000}, raw=True)")
    (shown,) = outcome.of_type("display_data")
    assert shown["content"]["data"]["text/plain"] == "é" * 10_000_000


def test_execute_5_mb_code(kernel: Running) -> None:
    code = f"len({'x' * 5_000_000!r})"
    assert kernel.run(code, store_history=False).result == "5000000"


def test_execute_1000_prints_in_order(kernel: Running) -> None:
    outcome = kernel.run("for i in range(1000): print(i, flush=True)")
    assert outcome.text().split() == [str(number) for number in range(1000)]


def test_execute_streams_and_displays_interleaved_in_order(kernel: Running) -> None:
    code = (
        "import sys\nfor i in range(300):\n"
        "    print(i, file=sys.stderr if i % 2 else sys.stdout, flush=True)\n"
        "    display({'text/plain': str(i)}, raw=True)"
    )
    kinds = []
    for kind, content in kernel.run(code).sequence[2:-1]:
        number = int(content["text"] if kind == "stream" else content["data"]["text/plain"])
        kinds.append((content.get("name", "display"), number))
    expected = [("stderr" if n % 2 else "stdout", n) for n in range(300)]
    assert kinds[::2] == expected
    assert kinds[1::2] == [("display", n) for n in range(300)]


def test_execute_output_is_there_with_the_reply(kernel: Running) -> None:
    shell, iopub = kernel.client.shell_channel, kernel.client.iopub_channel
    late = 0
    for number in range(100):
        msg_id = kernel.client.execute(f"print({number}); display({number})")
        shell.get_msg(timeout=PATIENCE_S)
        kinds: list[str] = []
        while not kinds or kinds[-1] != "display_data":
            # Two sockets of one client: which of them the client's ZeroMQ reads first is its own
            # affair, now and then. A local kernel is late as often.
            late += not iopub.msg_ready()
            kinds.append(iopub.get_msg(timeout=0.5)["msg_type"])
        idle = iopub.get_msg(timeout=PATIENCE_S)
        assert idle["content"] == {"execution_state": "idle"}
        assert idle["parent_header"]["msg_id"] == msg_id
    assert late <= 10


def test_execute_100_queued_cells_answered_in_order(kernel: Running) -> None:
    ids = [kernel.client.execute(f"print({number})") for number in range(100)]
    replies = [kernel.client.get_shell_msg(timeout=PATIENCE_S) for _ in ids]
    assert [reply["parent_header"]["msg_id"] for reply in replies] == ids
    for number, msg_id in enumerate(ids):
        outcome = collect(kernel.client, msg_id, awaits_reply=False)
        assert outcome.text() == f"{number}\n"


# Input


def test_input_twice_and_password(kernel: Running) -> None:
    code = "import getpass\n[input('one? '), input(), getpass.getpass('secret? ')]"
    answers = ["first 日本", "", "pass\tword"]
    outcome = kernel.run(code, answers=answers)
    assert outcome.result == repr(answers)
    prompts = [message["content"] for message in outcome.prompts]
    assert prompts == [
        {"prompt": "one? ", "password": False},
        {"prompt": "", "password": False},
        {"prompt": "secret? ", "password": True},
    ]


def test_input_after_output_in_order(kernel: Running) -> None:
    outcome = kernel.run("print('a', flush=True)\nx = input('?')\nprint(x)", answers=["b"])
    assert outcome.text() == "a\nb\n"


def test_input_not_allowed_raises(kernel: Running) -> None:
    outcome = kernel.run("input()", allow_stdin=False)
    assert outcome.reply["content"]["ename"] == "StdinNotImplementedError"


def test_input_asks_the_client_that_executed(kernel: Running) -> None:
    other = kernel.manager.client()
    other.start_channels()
    try:
        other.wait_for_ready(timeout=PATIENCE_S)
        outcome = run_beside(kernel, other)
        assert outcome.result == "'for the other'"
        assert not kernel.client.stdin_channel.msg_ready()
    finally:
        other.stop_channels()


def run_beside(kernel: Running, other: Any) -> Outcome:
    outcome = run(other, "input('whose?')", answers=["for the other"])
    assert [prompt["content"]["prompt"] for prompt in outcome.prompts] == ["whose?"]
    return outcome


def test_client_without_identity_is_answered(kernel: Running) -> None:
    session = kernel.client.session.clone()
    url = f"tcp://127.0.0.1:{kernel.client.shell_port}"
    with zmq.Context() as context, context.socket(zmq.DEALER) as bare:
        bare.linger = 0
        bare.connect(url)
        for _ in range(2):
            session.send(bare, "kernel_info_request", {})
            assert bare.poll(PATIENCE_S * 1000)
            _, reply = session.recv(bare)
            assert reply["msg_type"] == "kernel_info_reply"


# Comms


ECHO = """
def opened(comm, message):
    comm.on_msg(lambda m: comm.send({'said': m['content']['data']}, buffers=m['buffers']))
    comm.on_close(lambda m: print([len(b) for b in m['buffers']], m['content']['data']))
    comm.send({'opened': message['content']['data']}, buffers=message['buffers'])
get_ipython().kernel.comm_manager.register_target('echo', opened)
"""


def test_comm_opened_by_client_carries_buffers_both_ways(kernel: Running) -> None:
    kernel.run(ECHO)
    data = {"nul": "\0", "unicode": "é"}
    for kind, said in (("comm_open", "opened"), ("comm_msg", "said")):
        content = {"comm_id": "c1", "target_name": "echo", "data": data}
        msg_id = send(kernel, kind, content, [memoryview(buffer) for buffer in BUFFERS])
        (echo,) = collect(kernel.client, msg_id, awaits_reply=False).of_type("comm_msg")
        assert echo["content"] == {"comm_id": "c1", "data": {said: data}}
        assert buffers_of(echo) == BUFFERS
    closing = send(kernel, "comm_close", {"comm_id": "c1", "data": data}, BUFFERS)
    lengths = [len(buffer) for buffer in BUFFERS]
    assert collect(kernel.client, closing, awaits_reply=False).text() == f"{lengths} {data}\n"
    assert ask(kernel, kernel.client.comm_info()) == {"status": "ok", "comms": {}}


def test_comm_opened_by_kernel_carries_buffers(kernel: Running) -> None:
    code = (
        "import random\nfrom comm import create_comm\n"
        "buffers = [b'', bytes(range(256)), b'\\0' * 70_000, random.Random(1).randbytes(5_000_000)]\n"
        "c = create_comm(target_name='page', data={'n': 1}, buffers=[memoryview(b) for b in buffers])\n"
        "c.send({'n': 2}, buffers=buffers[::-1])\nc.close({'n': 3}, buffers=[buffers[1]])"
    )
    outcome = kernel.run(code)
    said = [message for message in outcome.iopub if message["msg_type"].startswith("comm_")]
    assert [message["msg_type"] for message in said] == ["comm_open", "comm_msg", "comm_close"]
    assert [message["content"]["data"] for message in said] == [{"n": n} for n in (1, 2, 3)]
    assert [buffers_of(message) for message in said] == [BUFFERS, BUFFERS[::-1], [BUFFERS[1]]]


# Questions about code


def test_kernel_info_tells_the_remote_interpreter(kernel: Running) -> None:
    info = ask(kernel, kernel.client.kernel_info())
    assert info["implementation"] == "ipython"
    assert info["language_info"]["name"] == "python"


def test_complete_uses_the_kernels_names(kernel: Running) -> None:
    # Jedi gives up when the machine is busy.
    kernel.run("%config IPCompleter.use_jedi = False\nremote_thing_42 = 1")
    reply = ask(kernel, kernel.client.complete("1 + remote_th", 13))
    assert reply["matches"] == ["remote_thing_42"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (4, 13)


def test_inspect_brings_docstring(kernel: Running) -> None:
    kernel.run("def f(é):\n    'the döc'")
    reply = ask(kernel, kernel.client.inspect("f(", 1))
    assert reply["found"]
    assert "the döc" in reply["data"]["text/plain"]


def test_history_of_this_session(kernel: Running) -> None:
    kernel.run("1+1")
    kernel.run("'é'")
    asking = kernel.client.history(
        raw=True, output=True, hist_access_type="range", session=0, start=1, stop=3
    )
    history = ask(kernel, asking)["history"]
    assert [entry[1:] for entry in history] == [[1, ["1+1", "2"]], [2, ["'é'", "'é'"]]]


def test_is_complete_each_answer(kernel: Running) -> None:
    codes = {"1+1": "complete", "def f():": "incomplete", "1 = = 2": "invalid", "f(": "incomplete"}
    replies = {code: ask(kernel, kernel.client.is_complete(code)) for code in codes}
    assert {code: reply["status"] for code, reply in replies.items()} == codes
    assert replies["def f():"]["indent"] == "    "


def test_control_channel_answers_while_a_cell_runs(kernel: Running) -> None:
    client = kernel.client
    msg_id = client.execute("input('wait')", allow_stdin=True)
    client.get_stdin_msg(timeout=PATIENCE_S)
    request = client.session.msg(
        "debug_request", {"type": "request", "seq": 1, "command": "debugInfo"}
    )
    client.control_channel.send(request)
    reply = client.get_control_msg(timeout=PATIENCE_S)
    assert reply["parent_header"]["msg_id"] == request["header"]["msg_id"]
    assert reply["content"]["command"] == "debugInfo"
    client.input("go on")
    assert client.get_shell_msg(timeout=PATIENCE_S)["parent_header"]["msg_id"] == msg_id


def test_heartbeat_beats_while_a_cell_runs(kernel: Running) -> None:
    kernel.client.execute("import time; time.sleep(3)")
    url = f"tcp://127.0.0.1:{kernel.client.hb_port}"
    with zmq.Context() as context, context.socket(zmq.REQ) as heart:
        heart.linger = 0
        heart.connect(url)
        for beat in (b"ping", b"", bytes(range(256))):
            heart.send(beat)
            assert heart.poll(2000)
            assert heart.recv() == beat
    assert kernel.client.get_shell_msg(timeout=PATIENCE_S)["content"]["status"] == "ok"
