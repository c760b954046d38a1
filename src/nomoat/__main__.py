"""`python -m nomoat` is `nomoat`."""

from nomoat.cli import main

main()
