"""The embedded default: a host made for the occasion, and a notebook that runs on it."""
