"""The agent's book of kernels, and the shelf for those that nobody carries.

A kernel whose hub left it goes on: what it says waits on the *shelf*, a link without a peer, under the
same policy as what waits for any other link. Whoever attaches gets it from there, in order and once.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any, Callable

from sshpyk.agent.kernel import Kernel, KernelState
from sshpyk.agent.process import KernelProcess
from sshpyk.agent.record import SHELF, KernelRecord, records
from sshpyk.agent.servers import Servers
from sshpyk.link.backlog import MakeBacklog
from sshpyk.link.link import Link
from sshpyk.wire.clock import now_s
from sshpyk.wire.driver import LinkDriver

if TYPE_CHECKING:
    from sshpyk.agent.service import Service

LEASE_S = 7 * 24 * 3600.0  # a kernel whose owner was not heard of for so long is ended

log = logging.getLogger(__name__)


class Shelf:
    """Where the kernels are that nobody carries."""

    def __init__(self, make_backlog: MakeBacklog | None = None) -> None:
        self._link = Link(SHELF, make_backlog=make_backlog)
        self._driver: LinkDriver | None = None
        self._next_stream = 1

    @property
    def driver(self) -> LinkDriver:
        """The link without a peer; made when it is wanted first."""
        if self._driver is None:
            self._driver = LinkDriver(self._link)
        return self._driver

    def new_streams(self) -> tuple[int, int]:
        """Return fresh numbers for a kernel's main and control stream."""
        self._next_stream += 2
        return self._next_stream - 2, self._next_stream - 1

    def forget(self, *streams: int) -> None:
        """Forget what waits on streams: it has been fetched, or nobody will."""
        for stream in streams:
            self.driver.release(stream)
            self._link.forget(stream)

    def close(self) -> None:
        """The agent leaves."""
        if self._driver is not None:
            self._driver.leave("")


class Book:
    """All kernels of this user on this host, whoever started them."""

    def __init__(self, make_backlog: MakeBacklog | None = None) -> None:
        self.kernels: dict[str, Kernel] = {}
        self.unheard: set[Kernel] = set()  # alive, or ended and their hubs do not know it yet
        self.servers = Servers()
        self.services: dict[LinkDriver, Service] = {}
        self.on_ended: Callable[[Kernel], None] = lambda kernel: None
        self._shelf = Shelf(make_backlog)
        self._unwanted: set[Kernel] = set()  # nobody is to hear their last words

    def add(self, kernel: Kernel) -> None:
        """Take a kernel into the book."""
        self.kernels[kernel.kernel_id] = kernel
        self.unheard.add(kernel)
        kernel.on_heard = lambda: self.unheard.discard(kernel)

    def check_all(self) -> None:
        """Notice every death; called on SIGCHLD."""
        self.servers.check_all()
        for kernel_id, kernel in list(self.kernels.items()):
            if not kernel.check_alive():
                del self.kernels[kernel_id]
                self.on_ended(kernel)
                if kernel in self._unwanted:
                    self.discard(kernel)

    def of(self, driver: LinkDriver) -> list[Kernel]:
        """Return the living kernels that a link carries."""
        return [kernel for kernel in self.kernels.values() if kernel.driver is driver]

    def find(self, kernel_id: str) -> Kernel | None:
        """Return a kernel, also one that has ended and whose last words nobody has heard yet."""
        found = [kernel for kernel in self.unheard if kernel.kernel_id == kernel_id]
        return self.kernels.get(kernel_id) or (found[0] if found else None)

    def activities(self) -> dict[str, Any]:
        """Return what each living kernel and server does, by id."""
        servers = {name: server.state.value for name, server in self.servers.alive.items()}
        kernels = {kernel_id: kernel.activity for kernel_id, kernel in self.kernels.items()}
        return {**servers, **kernels}

    def tell(self, kernel: Kernel, op: str, **params: Any) -> None:
        """Tell the hub that carries a kernel something about it, if one does."""
        service = self.services.get(kernel.driver)
        if service is not None:
            service.rpc.notify(op, kernel_id=kernel.kernel_id, **params)

    # Left and attached to

    def is_left(self, kernel: Kernel) -> bool:
        """Whether nobody carries it."""
        return kernel.link_id == SHELF

    def leave(self, kernel: Kernel) -> None:
        """Keep a kernel, and what its hub has not taken, until somebody attaches; idempotent."""
        if not self.is_left(kernel) and kernel.state is not KernelState.STARTING:
            log.info("kernel %s was left", kernel.kernel_id)
            kernel.move_to(self._shelf.driver, self._shelf.new_streams())
            kernel.note(left_s=now_s(), heard_s=now_s())

    def attach(self, kernel: Kernel, driver: LinkDriver, streams: tuple[int, int]) -> None:
        """Let a link carry a kernel, whoever carried it before."""
        before, was_left = kernel.streams, self.is_left(kernel)
        kernel.move_to(driver, streams)
        kernel.note(left_s=0.0, heard_s=0.0)
        if was_left:
            self._shelf.forget(*before)

    def adopt_left(self, record: KernelRecord, folder: str) -> Kernel:
        """Take care of a kernel that an agent before us kept on its shelf."""
        streams = self._shelf.new_streams()
        record = record.moved(SHELF, streams)
        process = KernelProcess.adopt(record, folder)
        kernel = Kernel(record, process, self._shelf.driver)
        self.add(kernel)
        kernel.note()
        kernel.adopt(record.left_s)
        return kernel

    # Time

    def lease_s(self, kernel: Kernel) -> float:
        """Return for how long a kernel is still kept if its owner is not heard of."""
        service = self.services.get(kernel.driver)
        heard_s = service.heard_s if service is not None else kernel.record.heard_s
        return heard_s + LEASE_S - now_s()

    def hear_of(self, owner: str) -> None:
        """Renew the leases of the kernels that an owner has left."""
        for kernel in self.unheard:
            if self.is_left(kernel) and owner and kernel.record.owner == owner:
                kernel.note(heard_s=now_s())

    def heard_s(self, link_id: str) -> float | None:
        """Return when something came over a link, by its id; None for one that is not kept."""
        for driver, service in self.services.items():
            if driver.link.link_id == link_id:
                return service.heard_s
        return None

    def end_expired(self) -> None:
        """End the kernels and servers that were left for longer than their lease."""
        self.servers.end_expired(self.heard_s)
        for kernel in list(self.unheard):
            if self.is_left(kernel) and self.lease_s(kernel) < 0:
                log.warning("kernel %s: its lease ran out", kernel.kernel_id)
                self.end_left(kernel)

    def end_left(self, kernel: Kernel) -> None:
        """End a kernel that nobody carries, and forget what it said."""
        kernel.process.signal(signal.SIGKILL)
        self.check_all()
        self.discard(kernel)

    def discard(self, kernel: Kernel) -> None:
        """Forget what a left kernel said, once it has ended: nobody is to hear it."""
        if not self.is_left(kernel):
            return
        if kernel.state is KernelState.ENDED:
            self._unwanted.discard(kernel)
            self._shelf.forget(*kernel.streams)
            kernel.remove_files_if_heard()
        else:
            self._unwanted.add(kernel)

    def close(self) -> None:
        """The agent leaves."""
        self._shelf.close()

    # What is left of others

    def sweep_stale(self, sockets: str, this_boot: str, *, dry_run: bool) -> list[str]:
        """Remove the folders of kernels that are no more; return which. Nothing that lives is touched."""
        ours = {kernel.process.folder for kernel in self.unheard}
        swept = []
        for folder, record in records(sockets):
            if folder in ours:
                continue
            here = record is not None and record.boot_id == this_boot
            if record and here and KernelProcess.adopt(record, folder).poll() is None:
                continue
            swept.append(os.path.basename(folder))
            if not dry_run:
                sweep(folder, record, this_boot)
        return swept


def sweep(folder: str, record: KernelRecord | None, this_boot: str) -> None:
    """Remove what is left of a kernel that nobody can reach any more, and end it."""
    log.warning("swept %s", folder)
    if record is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    process = KernelProcess.adopt(record, folder)
    if record.boot_id == this_boot:
        process.signal(signal.SIGKILL)
    process.remove_files()
