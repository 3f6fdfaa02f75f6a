"""Local folders that a host may use: an SFTP server that never leaves the folder it was given.

``sftp`` is the wire, ``session`` the protocol (bytes in, replies out), ``walk`` and ``confined`` the
file operations, ``landlock`` the second fence that the kernel keeps, ``server`` the process.
docs/mounts.md has the whole picture.
"""
