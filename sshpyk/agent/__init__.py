"""The process on the host: it holds the user's kernels and their undelivered output.

``locate`` finds or starts it, ``main`` is its life, ``service`` answers what a hub asks, ``kernelspecs``
finds what to run, ``process`` runs it, ``kernel`` has it in its care, ``book`` is all of them;
``channels`` joins a kernel's sockets to the link, ``sockets`` and ``zmtp`` speak ZeroMQ's wire protocol.
Python 3.8 and the standard library: nothing is installed there.
"""
