"""The process on the host: it holds the user's kernels and their undelivered output.

``locate`` finds or starts it, ``main`` is its life, ``service`` answers what a hub asks, ``kernelspecs``
finds what to run, ``kernels`` runs it, ``channels`` joins its sockets to the link, ``sockets`` and
``zmtp`` speak ZeroMQ's wire protocol. Python 3.8 and the standard library: nothing is installed there.
"""
