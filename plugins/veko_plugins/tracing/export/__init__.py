"""Sending what was recorded: OTLP, or through the application's own SDK."""
