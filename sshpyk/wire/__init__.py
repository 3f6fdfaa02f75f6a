"""What both ends share beyond the link itself: its asyncio driver and the payloads on its streams.

``carrier`` moves the bytes of one connection, ``driver`` runs one link, ``rpc`` is what travels on
stream 0, ``kernel_messages`` what travels on a kernel's streams, ``private`` makes the folders that
sockets live in, ``clock`` tells the time. Python 3.8 and the standard library only: it runs on hosts.
"""
