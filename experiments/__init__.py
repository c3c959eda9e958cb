"""Command-line binaries that chain the library into runs."""
