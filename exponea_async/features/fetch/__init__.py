"""Queries about the customer: recommendations, consent categories and attributes."""
