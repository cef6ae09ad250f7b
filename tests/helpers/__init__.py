"""
What tests share: clients, builders and values. Import them as ``from helpers.NAME import ...``.
"""
