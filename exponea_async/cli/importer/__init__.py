"""
The ``import`` command: tracks the lines of a JSON Lines, CSV or whitespace-separated file as events.
"""
