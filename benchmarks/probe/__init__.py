"""The measuring program. It runs in each subject's own Python: no import of sshpyk or its neighbours."""
