from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshpyk import errors
from sshpyk.errors import (
    AuthenticationFailed,
    InvalidInput,
    SshpykError,
    Unreachable,
    error_from_record,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SshpykError)
]


@pytest.mark.parametrize("kind", KINDS)
@given(what=st.text(), host=st.text(), phase=st.text(), said=st.text(), advice=st.text())
def test_record_survives_json(
    kind: type[SshpykError], what: str, host: str, phase: str, said: str, advice: str
) -> None:
    error = kind(what, host=host, phase=phase, said=said, advice=advice)
    back = error_from_record(json.loads(json.dumps(error.to_record())))
    assert type(back) is kind
    assert back.to_record() == error.to_record()
    assert str(back) == str(error)


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(Unreachable("no route", host="gpu1", phase="dialling")))
    assert isinstance(error, Unreachable)
    assert str(error) == "host gpu1: no route (while dialling) [HOST-UNREACHABLE]"


def test_unknown_kind_keeps_its_text() -> None:
    error = error_from_record({"kind": "FromTheFuture", "what": "it went wrong", "host": "gpu1"})
    assert type(error) is SshpykError
    assert str(error) == "host gpu1: it went wrong"


def test_empty_record_is_an_error_still() -> None:
    assert str(error_from_record({})) == "unknown failure"


def test_text_has_what_was_said_and_the_advice() -> None:
    error = AuthenticationFailed(
        "permission denied",
        host="gpu1",
        said="one\ntwo\n",
        advice="ssh gpu1",
        code="SSH-NEEDS-LOGIN",
    )
    assert str(error).splitlines() == [
        "host gpu1: permission denied [SSH-NEEDS-LOGIN]",
        "  | one",
        "  | two",
        "  -> ssh gpu1",
    ]


def test_exit_codes() -> None:
    assert {kind.exit_code for kind in KINDS if kind is not InvalidInput} == {1}
    assert InvalidInput.exit_code == 2
