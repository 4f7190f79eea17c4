"""What two core plugins or more share."""
