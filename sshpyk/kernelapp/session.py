"""A stand-in with a person in front of it, or a program that knows no provisioners.

What may be asked when is one table, :data:`_STEPS`. A restart shuts the kernel down and launches it
again behind the same connection file, as the provisioner's does: its local sockets stay, and so do
its clients.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from sshpyk.errors import HubError, KernelDied, KernelError
from sshpyk.hub.client import HubClient
from sshpyk.kernelapp.files import Note, forget, read_connection, remove
from sshpyk.kernelapp.keyboard import Keyboard, choice_for, menu_text
from sshpyk.kernelapp.progress import LogTail, Progress
from sshpyk.kernelapp.screen import Screen
from sshpyk.kernelapp.texts import KEYS, how_it_ended, kernel_text, way_back
from sshpyk.kernelapp.wish import Wish
from sshpyk.standin import Action, Request, StandIn

_TICK_S = 0.25  # while something is shown that changes
_KEYBOARD_S = 1.0  # the terminal may be given to us, or taken away


class Phase(Enum):
    """Where a session is."""

    LAUNCHING = "launching"
    RUNNING = "running"
    STOPPING = "shutting down"
    KILLING = "killing"
    RESTARTING = "restarting"  # the old kernel is being shut down
    LEAVING = "leaving"


_SOON_S = 2.0
_IMPATIENT = {
    Phase.STOPPING: "Ctrl+C to kill it",
    Phase.KILLING: "Ctrl+C to wait no longer",
}


class Session(StandIn):
    """See the module."""

    heeded = frozenset(Action)

    def __init__(
        self, wish: Wish, screen: Screen, keyboard: Keyboard | None, hub: HubClient
    ) -> None:
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().__init__(Request(wish.record), hub)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if keyboard is not None:
            self._parent = 0  # a shell's end is told by the terminal
        self._wish = wish
        self._screen = screen
        self._keyboard = keyboard
        self._existing = wish.existing
        self._phase = Phase.LAUNCHING
        self._since_s = time.monotonic()
        self._leaves_when_ready = wish.leave_at_once
        self._menu_is_open = False
        self._runs_on = False  # the kernel does, without us
        self._progress = Progress(self._request.target)
        self._log = LogTail(self._request.target) if wish.verbose else None
        self._note: Note | None = None

    def stand(self) -> int:
        """Launch or find the kernel, and return its exit status when it has ended, 0 when it was left."""
        try:
            status = super().stand()
            while self._phase is Phase.RESTARTING:
                self._launch_again()
                status = super().stand()
        except KernelDied:
            if self._existing is not None:
                forget(self._existing)
            raise
        except HubError:  # of the kernel we know nothing: the note may find it again
            self._runs_on = self._wish.persistent and self._note is not None
            raise
        finally:
            self._clean_up()
        if not self._runs_on:
            self._screen.tell(how_it_ended(status))
        return status

    def _ask_for_kernel(self) -> None:
        if self._existing is None:
            super()._ask_for_kernel()
        else:
            request = {**self._request.launch, "takeover": self._wish.takeover}
            self._hub.say("attach", request=request, kernel_id=self._existing)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since_s = time.monotonic()

    def _clean_up(self) -> None:
        self._screen.close()
        self._progress.close()
        if self._log is not None:
            self._show_log()
            self._log.close()
        # Until the kernel is ours, a file that was there is whose kernel it is.
        if self._wish.removes_file and (self._wish.made_file or self._ticket is not None):
            remove(self._wish.connection_file)
        if not self._runs_on:
            self._forget()

    def _forget(self) -> None:
        if self._note is not None:
            forget(self._note.kernel_id)
            self._note = None

    # What comes in

    def _wait(self) -> None:
        if self._hub.has_more:
            return
        watched: list[Any] = [self._hub.socket, self._wakeup]
        keyboard = self._keyboard
        if keyboard is not None and keyboard.is_ours:
            watched.append(keyboard)
        ready, _, _ = select.select(watched, [], [], self._patience_s())
        if keyboard in ready:
            assert keyboard is not None
            self._on_line(keyboard.read())
        if self._log is not None:
            self._show_log()
        if self._phase is not Phase.RUNNING and not self._wish.by_program:
            self._show_progress()

    def _patience_s(self) -> float | None:
        if self._log is not None or (
            self._phase is not Phase.RUNNING and not self._wish.by_program
        ):
            return _TICK_S
        return _KEYBOARD_S if self._keyboard is not None or self._parent else None

    def _on_record(self, record: dict[str, Any] | None) -> int | None:
        status = super()._on_record(record)
        event = record["event"] if record is not None else ""
        if event == "ready":
            self._on_ready()
        elif event == "left":
            self._runs_on = True
            assert record is not None
            if self._note is not None:
                self._note.save()  # as the latest
            self._tell_way_back(is_told=bool(record.get("told", True)))
            return 0
        elif event == "taken":
            self._runs_on = True
            assert record is not None
            by = record.get("by") or "another client"
            self._screen.warn(f"{by} has taken the kernel over; it runs on there")
            return 0
        return status

    def _how_it_ended(self, record: dict[str, Any]) -> int | None:
        return int(record["status"]) if record["event"] == "exited" else None

    def _on_ready(self) -> None:
        assert self._ticket is not None
        took_s = time.monotonic() - self._since_s
        if self._phase is Phase.LAUNCHING:
            self._enter(Phase.RUNNING)
            self._existing = None  # a restart launches another
            self._progress.close()
            self._keep_note()
        if self._leaves_when_ready:
            self._leave()
        elif not self._wish.by_program:
            self._screen.tell(f"ready after {took_s:.1f} s\n{self._info()}")

    def _keep_note(self) -> None:
        """Note where the kernel is, for ``--existing``."""
        if self._wish.by_program and not self._wish.persistent:
            return
        assert self._ticket is not None
        target = self._request.target
        self._note = Note(
            kernel_id=self._ticket["kernel_id"],
            kernel=self._wish.kernel,
            host=target.host,
            python=self._request.launch["python"],
            ssh=target.ssh,
            ssh_config=target.ssh_config,
            connection_file=self._wish.connection_file,
            connection=read_connection(self._wish.connection_file),
        )
        self._note.save()

    def _on_line(self, line: str | None) -> None:
        """Take a line that was typed, or None for Ctrl+D."""
        if line is None:
            self._menu_is_open = not self._menu_is_open
            self._screen.ask(f"\n{menu_text()}" if self._menu_is_open else "resumed\n")
            return
        if not self._menu_is_open:
            if line.strip():
                self._screen.tell(KEYS)
            return
        choice = choice_for(line)
        if choice is None:
            self._screen.ask(f"not in the menu: {line.strip()}\n{menu_text()}")
            return
        self._menu_is_open = False
        if choice.action is not None:
            self._act(choice.action)
        elif choice.key == "?":
            self._screen.tell(self._info())

    # What is asked, and what then happens

    def _act(self, action: Action) -> None:
        if self._menu_is_open:
            self._menu_is_open = False
            self._screen.tell("")
        step = _STEPS[self._phase].get(action)
        if step is None:
            self._screen.note(f"cannot {action.value} now: {self._phase.value}")
        else:
            step(self)

    def _interrupt(self) -> None:
        self._order(Action.INTERRUPT, "interrupt")
        if self._wish.by_program:
            return
        away = self._progress.away()
        self._progress.close()
        where = f"waits ({away}): for this cell, if it still runs then" if away else "sent"
        self._screen.note(f"interrupt {where}")

    def _interrupt_launch(self) -> None:
        if self._wish.by_program:
            self._order(Action.INTERRUPT, "interrupt")  # which ends nothing
        else:
            self._give_up_launch()

    def _give_up_launch(self) -> None:
        if self._existing is not None:
            raise KernelError("given up; the kernel runs on", host=self._request.target.host)
        self._kill()

    def _shut_down(self) -> None:
        if self._wish.persistent:
            self._leave()
        else:
            self._stop()

    def _stop(self) -> None:
        self._enter(Phase.STOPPING)
        self._say_again()

    def _kill(self) -> None:
        self._enter(Phase.KILLING)
        self._say_again()

    def _go_on(self) -> None:
        """Do nothing more: a closed terminal says so twice, the system and the shell."""

    def _stop_waiting(self) -> None:
        if self._phase is Phase.LEAVING:
            raise HubError("the hub did not answer", host=self._request.target.host)
        self._forget()
        raise HubError(
            "not waited for any longer; the kernel is ended as soon as the host can be reached",
            host=self._request.target.host,
            phase=self._phase.value,
        )

    def _restart(self) -> None:
        if not self._wish.kernel:
            name = "sshpyk-kernel --existing ID --kernel NAME"
            self._screen.note(f"a restart needs the kernel's local name: {name}")
            return
        self._enter(Phase.RESTARTING)
        self._say_again()

    def _launch_again(self) -> None:
        self._enter(Phase.LAUNCHING)
        self._hub.close()
        self._ticket = None
        self._forget()
        self._hub = self._request.reach_hub()

    def _leave(self) -> None:
        self._enter(Phase.LEAVING)
        self._say_again()

    def _leave_when_ready(self) -> None:
        self._leaves_when_ready = True
        self._screen.note("will leave as soon as the kernel is ready")

    def _say_again(self) -> None:
        """Tell the hub, or the next one, what this phase wants of it."""
        grace_s = self._request.shutdown_timeout_s
        unsaid, self._unsaid = self._unsaid, []
        if self._phase is Phase.LEAVING:
            self._order(Action.LEAVE, "leave")
        elif self._phase is Phase.KILLING:
            self._order(Action.END, "stop", grace_s=0)
        elif self._phase in (Phase.STOPPING, Phase.RESTARTING):
            self._order(Action.END, "stop", grace_s=grace_s)
        elif Action.INTERRUPT in unsaid:
            self._order(Action.INTERRUPT, "interrupt")

    # What is shown

    def _notify(self, text: str) -> None:
        self._screen.warn(text)

    def _show_log(self) -> None:
        assert self._log is not None
        for line in self._log.lines():
            self._screen.log(line)

    def _show_progress(self) -> None:
        if self._keyboard is not None and not self._keyboard.is_ours:
            return  # in the background: the line is the shell's
        target, elapsed_s = self._request.target, time.monotonic() - self._since_s
        doing = self._phase.value
        if self._phase is Phase.LAUNCHING:
            doing = self._progress.phase() or doing
        elif elapsed_s > _SOON_S:
            away = self._progress.away()
            doing = ", ".join(filter(None, (doing, away, _IMPATIENT.get(self._phase))))
        self._screen.progress(f"{target.host}: {doing} ({elapsed_s:.0f} s)")

    def _info(self) -> str:
        """Return what there is to know about the kernel."""
        if self._ticket is None:
            return f"no kernel on {self._request.target.host} yet: {self._phase.value}"
        return kernel_text(self._ticket, self._request.target.host, self._wish, self._keys)

    @property
    def _keys(self) -> str:
        return KEYS if self._keyboard is not None else ""

    def _tell_way_back(self, *, is_told: bool) -> None:
        assert self._ticket is not None
        host = self._request.target.host
        self._screen.tell(way_back(self._ticket["kernel_id"], host, self._wish.kernel))
        if not is_told:
            self._screen.note(f"{host} cannot be reached now, and is told when it can")


# In which phase what may be asked.
_Step = Callable[[Session], None]
_STEPS: dict[Phase, dict[Action, _Step]] = {
    Phase.LAUNCHING: {
        Action.INTERRUPT: Session._interrupt_launch,
        Action.SHUT_DOWN: Session._give_up_launch,
        Action.END: Session._give_up_launch,
        Action.LEAVE: Session._leave_when_ready,
    },
    Phase.RUNNING: {
        Action.INTERRUPT: Session._interrupt,
        Action.SHUT_DOWN: Session._shut_down,
        Action.END: Session._stop,
        Action.RESTART: Session._restart,
        Action.LEAVE: Session._leave,
    },
    Phase.RESTARTING: {
        Action.SHUT_DOWN: Session._stop,
        Action.END: Session._stop,
        Action.LEAVE: Session._leave_when_ready,
    },
    Phase.STOPPING: {
        Action.INTERRUPT: Session._kill,
        Action.SHUT_DOWN: Session._go_on,
        Action.END: Session._kill,
    },
    Phase.KILLING: {
        Action.INTERRUPT: Session._stop_waiting,
        Action.SHUT_DOWN: Session._go_on,
        Action.END: Session._stop_waiting,
    },
    Phase.LEAVING: {
        Action.INTERRUPT: Session._stop_waiting,
        Action.SHUT_DOWN: Session._go_on,
        Action.LEAVE: Session._go_on,
    },
}
