"""
The ``demo`` command: a simulated shop that tracks to the local sandbox.
"""
