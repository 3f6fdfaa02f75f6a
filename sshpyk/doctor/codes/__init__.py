"""The rows of :mod:`sshpyk.doctor.catalogue`, by what they are about."""
