"""The benchmark: named layers of well-known networks, timed against torch. Run ``python -m bench --help``."""
