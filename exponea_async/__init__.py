"""
The asyncio-native tracking SDK for Bloomreach Engagement.
"""
