"""`python -m bd_diff` is the command `bd-diff`."""

from bd_diff.cli import main

main()
