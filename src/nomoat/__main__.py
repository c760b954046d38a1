"""What `nomoat` and `python -m nomoat` start."""

from __future__ import annotations

import signal


def main() -> None:
    """The command line. Ctrl-C before its verb has begun, which knows what to keep and to say, ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where whoever started it has it ignored, as `nohup` does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nomoat.cli import main as begin

    begin()


if __name__ == "__main__":
    main()
