"""Segments: the groups that a customer belongs to."""
