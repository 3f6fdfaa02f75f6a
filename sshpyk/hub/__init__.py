"""The local process that owns the link to one host: started on demand, leaves when idle.

``client`` is how others reach it, ``main`` its life, ``server`` what they may ask, ``kernels`` the
kernels in its care, ``endpoints`` the ZeroMQ sockets that Jupyter clients see, ``host`` the link that
is kept up, ``dial`` one ssh connection from nothing to the first frame, ``bundle`` the agent's code.
"""
