"""The ``demo`` command: a small shop that tracks into the local sandbox."""
