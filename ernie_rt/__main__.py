"""`python -m ernie_rt` is `ernie-rt`."""

from ernie_rt.cli import main

main()
