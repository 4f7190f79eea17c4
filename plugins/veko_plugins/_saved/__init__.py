"""What is written down: plugins, states and values, whole or not at all."""
