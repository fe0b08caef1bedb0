"""These files are run by Sphinx; pytest, which looks for doctests in the package, leaves them alone."""

collect_ignore_glob = ["*.py"]
