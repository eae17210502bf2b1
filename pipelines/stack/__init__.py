"""The servers of a cluster on one machine's loopback, for trying things out and for tests; see `make stack`."""
