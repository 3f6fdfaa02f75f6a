"""What the project survives: each test carries the number of its row in docs/faults.md."""
