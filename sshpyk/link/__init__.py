"""The lossless link: a pure protocol core, the same at both ends.

No socket, thread, clock or log inside; time is passed in as seconds. Read in this order:
``frames`` (what travels), ``stream`` (one reliable ordered sequence of messages) with its halves
``sender`` and ``receiver``, ``pacing`` (how much may be under way), ``turns`` (whose chunk is next),
``link`` (all streams of one link), ``connection`` (one ssh process carrying it). ``sshpyk.wire.driver``
runs a link, ``sshpyk.wire.carrier`` feeds a connection; the text is ``docs/protocol.md``.
"""
