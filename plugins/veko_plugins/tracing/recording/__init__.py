"""Recording: what is written down while a hook or a request runs."""
