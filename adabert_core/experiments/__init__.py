"""Experiments: many runs side by side, and what they come to as one table. The stages below know nothing of it."""
