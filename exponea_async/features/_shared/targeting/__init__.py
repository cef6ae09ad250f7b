"""Rules that decide which message is shown: event filters, dates, frequency and priority."""
