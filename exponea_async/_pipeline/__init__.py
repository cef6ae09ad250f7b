"""
The one-way street from a call to the platform's verdict.
"""
