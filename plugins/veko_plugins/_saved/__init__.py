"""What `state` and `backup` write to files: plugins, their configurations and values."""
