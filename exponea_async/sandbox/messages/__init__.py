"""
Messages to customers: in-app messages, content blocks, the App Inbox, segments, consents and attributes.
"""
