"""The life cycle: which plugins are live. Stands on the bus."""
