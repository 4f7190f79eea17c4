"""Plugins in processes of their own: JavaScript, TypeScript, and Python that is isolated."""
