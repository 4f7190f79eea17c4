"""Python plugins in processes of their own: the worker's side, and how the host starts it."""
