"""
What can be tracked and loaded. No feature imports another.
"""
