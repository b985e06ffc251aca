"""``python -m nsk8s`` and the `nsk8s` console script."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    _just_end()  # until `run` can answer
    from nsk8s.daemon.loading import foreseen

    loading = foreseen(sys.argv[1:])
    try:
        from nsk8s.cli.main import run

        sys.exit(run(sys.argv[1:], loading))
    finally:
        _just_end()
        if loading:
            loading.close()
        gc.freeze()  # at the end Python would look through all there is for cycles, for up to 50 ms


def _just_end() -> None:
    """Let Ctrl-C end us without a word, unless whoever started us has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
