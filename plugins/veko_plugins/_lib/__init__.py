"""Code that two core plugins or more share."""
