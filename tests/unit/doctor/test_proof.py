"""How checks run side by side and what a failure becomes; real launches are in the integration tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tornado.web import HTTPError

from sshpyk.doctor import proof as module
from sshpyk.doctor.proof import AT_ONCE, Proof, prove
from sshpyk.errors import KernelDied, KernelError, SshpykError
from sshpyk.provisioner import shown_by_jupyter

Launch = Callable[[str], Awaitable[None]]


def proven(monkeypatch: pytest.MonkeyPatch, launch: Launch, *names: str) -> list[Proof]:
    told: list[Proof] = []
    monkeypatch.setattr(module, "_launch_once", launch)
    proofs = prove(names, told.append)
    assert sorted(told, key=lambda item: item.name) == sorted(proofs, key=lambda item: item.name)
    return proofs


def test_a_few_at_a_time_each_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [0, 0]

    async def launch(name: str) -> None:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.02)
        running[0] -= 1

    proofs = proven(monkeypatch, launch, *(f"k{number}" for number in range(10)))
    assert running == [0, AT_ONCE]
    assert [item.name for item in proofs] == [f"k{number}" for number in range(10)]
    assert all(item.took_s >= 0.02 and item.error is None for item in proofs)


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (KernelDied("it ended", said="No module"), KernelDied, "it ended"),
        (shown_by_jupyter(KernelDied("it ended")), KernelDied, "it ended"),
        (RuntimeError("Kernel died before replying"), KernelError, "Kernel died before replying"),
        (asyncio.TimeoutError(), KernelError, "no answer in time"),
    ],
    ids=repr,
)
def test_failure_is_one_of_ours_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[SshpykError], what: str
) -> None:
    async def launch(name: str) -> None:
        if name == "bad":
            raise error

    bad, good = proven(monkeypatch, launch, "bad", "good")
    assert type(bad.error) is kind
    assert not isinstance(bad.error, HTTPError)
    assert bad.error is not None
    assert bad.error.what == what
    assert good.error is None
