"""The retrain component."""
