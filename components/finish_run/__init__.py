"""The finish_run component."""
