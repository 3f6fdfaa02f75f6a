from __future__ import annotations

import json
from pathlib import Path

import pytest

from sshpyk.doctor.redact import HIDDEN, known_secrets, redacted, redacted_text

SECRET = "s3cr3t-Val-ue"
KEY = "a0436f6c-1916498b8eb9e81ab9368e84"


@pytest.mark.parametrize(
    "text",
    [
        f"http://h:8888/lab?token={SECRET}&x=1",
        f"JUPYTER_TOKEN={SECRET}",
        f"password: {SECRET}",
        f'{{"key": "{SECRET}", "ip": "127.0.0.1"}}',
        f"{{'curve_secretkey': '{SECRET}'}}",
        f"Authorization: Bearer {SECRET}",
        f"sending Bearer {SECRET} now",
        f"nc --password {SECRET} %h %p",
        f"sshpass -p {SECRET} ssh h",
        f"nc --proxy-auth-token={SECRET}",
        f"https://me:{SECRET}@proxy:3128/",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"HMAC_KEY = '{SECRET}'",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    shown = redacted_text(text)
    assert SECRET not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        "Permission denied (publickey,password,keyboard-interactive).",
        'Load key "/home/me/.ssh/id": bad permissions',
        "ED25519 host key for [127.0.0.1]:22801 has changed",
        "identityfile ~/.ssh/id_rsa",
        "ssh gpu1 '/opt/bin/python -m pip install ipykernel'",
        "StrictHostKeyChecking: ask",
        "http://localhost:8888/lab",
        "epoch 3: resumed at 17:45:12",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redacted_text(text) == text


def test_settings_of_ssh_stay_and_setenv_goes() -> None:
    settings = {
        "identityfile": "~/.ssh/id_rsa",
        "pubkeyauthentication": "true",
        "passwordauthentication": "yes",
        "stricthostkeychecking": "ask",
        "hostkeyalgorithms": "ssh-ed25519",
        "numberofpasswordprompts": "3",
        "setenv": f"A={SECRET}",
    }
    assert redacted(settings) == {**settings, "setenv": HIDDEN}


def test_members_with_secret_names_are_hidden_at_any_depth() -> None:
    record = {"a": [{"key": SECRET}, {"env": {"X": SECRET}}, {"api_key": [SECRET]}, {"token": 5}]}
    shown = redacted(record)
    assert SECRET not in json.dumps(shown)
    assert redacted({"key": ""}) == {"key": ""}  # that it is empty may be the cause


def test_known_values_are_hidden_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "kernel-1.json"
    file.write_text(json.dumps({"key": KEY, "curve_secretkey": SECRET + "2", "ip": "127.0.0.1"}))
    (tmp_path / "odd.json").write_text("[")
    environ = {"MY_TOKEN": SECRET, "SSH_AUTH_SOCK": "/tmp/agent", "HOME": "/home/me", "KEY": "1"}
    known = list(
        known_secrets(
            environ, [file, tmp_path / "odd.json", tmp_path / "no"], [{"X": "hidden-too"}]
        )
    )
    text = f"log: {KEY} and {SECRET}2, {SECRET}; hidden-too; /home/me 127.0.0.1 1"
    assert redacted({"lines": [text]}, known) == {
        "lines": [f"log: {HIDDEN} and {HIDDEN}, {HIDDEN}; {HIDDEN}; /home/me 127.0.0.1 1"]
    }
