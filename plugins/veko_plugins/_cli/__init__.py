"""The commands of `veko`, one file each, over what they share: the application and its running."""
