"""What can be a kernel on a host: a script that looks, and what its answer means.

Pure, but for ``on_host``, which runs there.
"""
