"""One file a verb: read the arguments, call the library, print."""
