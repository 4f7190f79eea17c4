"""Recording: what is written down on the path of a hook call or a request."""
