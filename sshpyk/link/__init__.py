"""The lossless link: a pure protocol core, the same at both ends.

No socket, thread, clock or log inside; time is passed in as seconds. Read in this order:
``frames`` (what travels), ``stream`` (one reliable ordered sequence of messages), ``pacing`` (how much
may be under way), ``link`` (all streams of one link), ``connection`` (one ssh process carrying it).
The driver that feeds it is ``sshpyk.wire.carrier``; the text is ``docs/protocol.md``.
"""
