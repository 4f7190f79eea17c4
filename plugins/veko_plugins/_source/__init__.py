"""A plugin's source: where it is, what it says of itself, its files and bytecode."""
