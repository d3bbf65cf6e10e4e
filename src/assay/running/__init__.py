"""Running pipelines: locally, with a record of every run; and compiling them for a server."""
