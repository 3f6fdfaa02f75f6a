"""The command line: one verb, one file; a verb returns a record, ``render`` prints it."""
