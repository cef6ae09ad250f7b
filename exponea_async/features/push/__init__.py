"""Push notifications: tokens, deliveries and clicks."""
