"""``python -m assay.cli``: the command line where the script ``assay`` is not on the path."""

from assay.cli import main

main()
