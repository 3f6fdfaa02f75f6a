"""What a command keeps with the hub: tunnels, mounts, and the Jupyter servers of a host that it shows.

``tunnels``, ``mounts`` and ``jupyter`` are the hub's side, ``owner`` and ``lab`` the command's;
``conversation`` joins the two.
"""
