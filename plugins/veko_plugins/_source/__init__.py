"""A plugin's source: where it is, its outline, its files and bytecode."""
