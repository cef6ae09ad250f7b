"""
The ``doctor`` command: checks the settings, the network and the queue, and changes nothing.
"""
