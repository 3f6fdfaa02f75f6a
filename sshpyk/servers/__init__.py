"""What runs on a host and is used here: tunnels to its ports and sockets (the hub's side of them)."""
