"""A kernel behind a fault proxy of its own, and the comparison with a run that met no fault.

``bench``    proxy, hub and kernels that serve one test only. A test runs over the direct alias; with
             ``@pytest.mark.parametrize("bench", BOTH_WAYS, indirect=True)`` also through the
             bastion, whose sshd the proxy then stands in front of
``account``  an account on the remote with an agent of its own
``control``  what :func:`session` brings without any fault

*Exact* (:func:`assert_exact`): on each channel the same messages by hash, none twice, and no number
missing in ipykernel's own count that is not missing without the fault.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.faultproxy import FaultProxy
from tests.integration.kernels import (
    PATIENCE_S,
    AddKernel,
    Running,
    eventually,
    started,
)
from tests.integration.lifecycle_helpers import OwnHub, hub_of
from tests.integration.machines import USER, Lab
from tests.integration.recorder import Recorder

BOTH_WAYS = ["remote", "remote-jump"]
# Whose sshd the laptop meets on the way to an alias.
_FIRST_HOP = {"remote": "remote", "remote-jump": "bastion"}
LINES = 60
PRINTING = f"""
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.05)
number"""
CELLS = [
    "import time",
    PRINTING,
    "[input('a? '), number]",
    "display({'text/html': '<b>é</b>', 'text/plain': 'é'}, raw=True); 1 / 0",
    "from comm import create_comm; c = create_comm('t', {'d': 1}, buffers=[bytes(range(256)) * 999])",
    "print('x' * 300_000); number + 1",
]
IN_THE_MIDDLE = "line 20\n"

# The rows ask for 2 s; a machine with two cores that runs four tests takes longer for an ssh login.
RESUMED_WITHIN_S = 5.0

Act = Callable[[], object]


class ResumedLate(AssertionError):
    """All came, but not soon enough."""


def ssh_config_for(host_alias: str, proxy: FaultProxy) -> str:
    """Return what leads ssh to the proxy on its way to ``host_alias``."""
    hop = _FIRST_HOP[host_alias]
    host, port = proxy.address
    return f"Host {hop}\n    HostName {host}\n    Port {port}\n    HostKeyAlias {hop}\n"


@dataclass
class Bench:
    """See the module."""

    lab: Lab
    proxy: FaultProxy
    hub: OwnHub
    add_kernel: AddKernel

    def add(self, *options: str) -> str:
        """Add a kernel whose connections pass the proxy; return its name."""
        return self.add_kernel(self.hub.host, *self.hub.options, *options)

    @contextlib.contextmanager
    def kernel(self, *options: str) -> Iterator[Running]:
        """Start a kernel of this bench."""
        with started(self.lab, self.add(*options)) as running:
            yield running

    def exactly_as(self, control: Recorder, act: Act, **options: Any) -> Recorder:
        """Run the session, do ``act`` in its middle, and compare; return what was heard.

        ``options``: those of :func:`session`.
        """
        with self.kernel() as kernel:
            recorder = session(kernel, act, **options)
            self.await_one_connection()
        assert_exact(recorder, control)
        return recorder

    def await_one_connection(self) -> None:
        """Wait until the link is up and one ssh process carries it."""
        eventually(
            lambda: self.hub.link_state() == "up" and len(self.hub.connections()) == 1,
            "one connection that is up",
            timeout_s=PATIENCE_S,
        )

    def assert_resumed_soon(self, recorder: Recorder) -> None:
        """Check how long after the end of the pause the next message was heard; print it too."""
        after_s = next(heard for heard, _ in recorder.times if heard > self.proxy.resumed_s)
        after_s -= self.proxy.resumed_s
        print(f"resumed {after_s:.2f} s after the line's return")
        print(f"{self.proxy.total_connections} connections, seed {self.proxy.seed}")
        if after_s > RESUMED_WITHIN_S:
            raise ResumedLate(f"{after_s:.2f} s")


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, lab: Lab, add_kernel: AddKernel, tmp_path: Path
) -> Iterator[Bench]:
    """A bench to the alias that is the fixture's parameter, if there is one."""
    with bench_to(lab, getattr(request, "param", "remote"), add_kernel, tmp_path) as made:
        yield made


@contextlib.contextmanager
def bench_to(
    lab: Lab, host_alias: str, add_kernel: AddKernel, folder: Path, *, user: str = USER
) -> Iterator[Bench]:
    """Make a proxy, and a hub whose connections pass it and log in as ``user``."""
    with FaultProxy(_FIRST_HOP[host_alias], 22) as proxy:
        more_config = f"Host {host_alias}\n    User {user}\n{ssh_config_for(host_alias, proxy)}"
        with hub_of(lab, host_alias, folder / "ssh_config", more_config) as hub:
            yield Bench(lab, proxy, hub, add_kernel)


@functools.cache
def _controls() -> list[Recorder]:
    return []


@pytest.fixture
def control(lab: Lab, add_kernel: AddKernel) -> Recorder:
    """What the session brings from the same host without proxy and fault; made once per worker."""
    if not _controls():
        with started(lab, add_kernel("remote")) as kernel:
            _controls().append(session(kernel))
    return _controls()[0]


def session(
    kernel: Running,
    act: Act = lambda: None,
    *,
    cells: Sequence[str] = CELLS,
    patience_s: float = PATIENCE_S,
) -> Recorder:
    """Run the cells one after the other; ``act`` in the middle of the printing one."""
    recorder = Recorder(kernel.client)
    recorder.acts[IN_THE_MIDDLE] = act
    for code in cells:
        recorder.send_cell(code)
        recorder.await_answers(patience_s=patience_s)
    assert not recorder.acts, "the fault was never injected"
    return recorder


def assert_exact(recorder: Recorder, control: Recorder) -> None:
    """Check that ``recorder`` heard exactly what ``control`` did."""
    if recorder.digests() != control.digests():
        heard, expected = recorder.normal(), control.normal()
        for channel in expected:
            assert heard[channel] == expected[channel], channel
    assert recorder.repeated == []
    assert recorder.missing == control.missing


# Accounts


@contextlib.contextmanager
def own_account(lab: Lab, *, shell: str = "/bin/bash") -> Iterator[str]:
    """Make an account on the remote that logs in as ours does, and so has an agent of its own.

    In the end nothing may run there; the account goes, with all that it owns.
    """
    name = f"t{uuid.uuid4().hex[:8]}"
    script = f"""useradd --create-home --shell {shell} {name}
        install -d -o {name} -g {name} -m 700 /home/{name}/.ssh
        install -o {name} -g {name} -m 600 /home/{USER}/.ssh/authorized_keys /home/{name}/.ssh/"""
    lab.remote.run(f"set -e; {script}", user="root")
    try:
        yield name
        eventually(
            lambda: not lab.remote.processes(user=name), "the end of the account's processes"
        )
    finally:
        lab.remote.run(
            f"pkill -KILL -u {name}; sleep 0.1; find /tmp -xdev -user {name} -delete;"
            f"userdel --remove --force {name}",
            user="root",
            check=False,
        )


@pytest.fixture
def account(lab: Lab) -> Iterator[str]:
    """The name of an account on the remote that is this test's own."""
    with own_account(lab) as name:
        yield name
