"""
The way of an event from a call to the verdict of the platform.
"""
