"""Of tunnels and Jupyter servers."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import Entry

_SERVER = "integration/test_servers.py"

TUNNELS = {
    "TUNNEL-FAILED": Entry(
        "something else listens on that address, or nothing answers behind the other end",
        "the host cannot listen on …",
        "end that first, name another local port, or 0 for a free one",
        "unit/servers/test_tunnels.py::test_a_tunnel_that_cannot_be_opened_leaves_nothing",
    ),
}

SERVERS = {
    "SERVER-NOT-FOUND": Entry(
        "no Python that was looked at has it; the message lists them",
        "… was not found",
        "name the environment that has it: --prefix PATH, --python PATH or --activate",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-NO-PROGRAM": Entry(
        "what --python or --prefix names is not on the host",
        "cannot run …",
        "name another interpreter of the host with --python or --prefix",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-NO-FOLDER": Entry(
        "what --dir names is not on the host",
        "there is no folder …",
        "create it on the host, or name another one with --dir",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-CONFIG": Entry(
        "Jupyter does not accept an option behind --, or its config there",
        "… ended with … before it listened",
        "correct the option behind --, or Jupyter's config on the host (~/.jupyter)",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-PORT-TAKEN": Entry(
        "a port of the host was named, and another program has it",
        "… ended with … before it listened",
        "leave the port to sshpyk: without --port or --ip behind -- the server has a unix socket",
        f"{_SERVER}::test_a_start_that_fails_says_why",
    ),
    "SERVER-ROOT": Entry(
        "Jupyter does not run as root unless it is told to",
        "… ended with … before it listened",
        "log in as another user, or allow it: sshpyk lab HOST -- --allow-root",
        "unit/agent/test_servers.py::test_last_words_have_a_code",
    ),
    "SERVER-SLOW": Entry(
        "a cold environment on a network file system, or something that waits",
        "the server does not listen after … s",
        "it was stopped again; if it is merely slow: --timeout SECONDS",
        "unit/servers/test_jupyter.py::test_one_that_never_listens_is_given_up_in_time",
    ),
    "SERVER-ENDED": Entry(
        "somebody chose Shut Down in the browser, or ended it on the host",
        "the server has ended, …",
        "",
        f"{_SERVER}::test_one_that_ends_or_whose_host_is_gone_says_so",
    ),
    "SERVER-GONE": Entry(
        "it has ended, or the host was rebooted",
        "there is no such server on the host any more",
        "see sshpyk servers HOST; start one: sshpyk lab HOST",
        "unit/agent/test_servers.py::test_what_is_no_server_is_refused",
    ),
    "SERVER-FAILED": Entry(
        "its own words are shown; `sshpyk logs HOST ID` has all of them",
        "… ended with … before it listened",
        "",
        "unit/agent/test_servers.py::test_last_words_have_a_code",
    ),
}
