"""Figures of sshpyk beside those of a local kernel, from the same machine and the same run."""
