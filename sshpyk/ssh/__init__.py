"""Everything known about OpenSSH: its command line, its configuration and what its errors mean.

``command`` builds argv, ``config`` asks ``ssh -G`` what a host stands for, ``diagnose``
(with its table ``cause*``) turns what ssh printed into an error with advice.
Knows neither Jupyter nor ZMQ.
"""
