"""``sshpyk-kernel`` on a command line, for a person in a terminal or a program without provisioners.

``command`` reads the words, ``session`` is the stand-in with keys and all signals, ``keyboard`` and
``screen`` are the terminal, ``files`` are connection files and the notes by which a kernel is found
again. Nothing here is imported for a kernel that the provisioner starts.
"""
