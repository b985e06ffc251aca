"""The command line: thin, and the only room that prints or exits. Results go to stdout, progress and
errors to stderr. Each command's module is imported when it is called, not before."""
