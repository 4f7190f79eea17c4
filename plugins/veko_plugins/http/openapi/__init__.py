"""One OpenAPI document for all active plugins."""
