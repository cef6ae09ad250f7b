"""
Tests of the integrations, each with the real framework. A package, so that it has fixtures of its own.
"""
