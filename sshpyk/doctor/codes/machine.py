"""Of this machine."""

from __future__ import annotations

from sshpyk.doctor.codes.entry import Entry

MACHINE = {
    "JUPYTER-NO-PROVISIONER": Entry(
        "sshpyk runs from another environment than Jupyter, or from its sources alone",
        "this Jupyter does not know …",
        "install sshpyk where Jupyter is, not from its folder of sources alone",
        "unit/cli/test_doctor.py::test_this_machine_stops_at_the_cause",
    ),
    "LOCAL-FOLDER": Entry(
        "the folder of logs or sockets belongs to somebody else, or is read-only",
        remedy="make it a folder of your own",
        test="unit/doctor/test_machine.py::test_folder",
    ),
    "LOCAL-DISK-FULL": Entry(
        "less than 1 MB is left here",
        "…: the disk is full",
        "make room on that disk",
        "unit/doctor/test_machine.py::test_folder",
    ),
    "HUB-FAILED": Entry(
        "the local process that owns the link did not start, or went away; its log says more",
        "the hub for … did not start",
        "see what this machine lacks: sshpyk doctor",
        "unit/hub/test_client.py::test_a_hub_that_never_listens_is_an_error",
    ),
}
