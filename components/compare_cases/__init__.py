"""The compare_cases component."""
