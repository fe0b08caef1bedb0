"""Programs to read and to start from: ``python -m fastconv.examples.NAME --help``."""
