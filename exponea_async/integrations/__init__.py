"""
Integrations for frameworks: each module needs its framework, and nothing imports it unless the application does.
"""
