"""The bus: which handlers are called, and in what order. Knows no plugin."""
