from __future__ import annotations

import os

import pytest

from sshpyk.kernelapp.keyboard import MENU, Keyboard, choice_for, menu_text
from sshpyk.standin import Action


@pytest.mark.parametrize(
    ("typed", "action"),
    [
        ("i\n", Action.INTERRUPT),
        (" R \n", Action.RESTART),
        ("shut\n", Action.END),
        ("leave\n", Action.LEAVE),
    ],
)
def test_a_choice_is_its_key_or_its_first_word(typed: str, action: Action) -> None:
    choice = choice_for(typed)
    assert choice is not None
    assert choice.action is action


@pytest.mark.parametrize("typed", ["x\n", "ir\n", "interrupts\n"])
def test_what_is_neither_is_no_choice(typed: str) -> None:
    assert choice_for(typed) is None


def test_enter_alone_does_nothing_to_the_kernel() -> None:
    choice = choice_for("\n")
    assert choice is not None
    assert (choice.key, choice.action) == ("", None)


def test_every_choice_is_shown() -> None:
    assert all(choice.words in menu_text() for choice in MENU)


def test_a_pipe_is_no_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert Keyboard.of_terminal() is None
    os.close(writer)
    monkeypatch.setattr("sys.stdin", None)
    assert Keyboard.of_terminal() is None
