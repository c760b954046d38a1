"""What `nomoat` and `python -m nomoat` start."""

from __future__ import annotations

import signal


def main() -> None:
    """The command line. Ctrl-C before anything has begun ends it without a word."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not where whoever started it has it ignored, as `nohup` does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nomoat.cli import main as begin

    signal.signal(signal.SIGINT, handler)
    begin()


if __name__ == "__main__":
    main()
