"""Data of a customer from the platform: recommendations, consents and attributes."""
