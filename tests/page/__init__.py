"""
Tests of the page in Chromium. A package, so that it has fixtures of its own.
"""
