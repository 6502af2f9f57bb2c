"""The command line: options only; what a command does is imported once it runs."""
