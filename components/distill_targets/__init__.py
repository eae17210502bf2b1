"""The distill_targets component."""
