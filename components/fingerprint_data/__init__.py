"""The fingerprint_data component."""
