"""
What is stored for a device: the segments that were loaded last.
"""

#: The name under which a device's segments are stored.
NAME = "segments"
