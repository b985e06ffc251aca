"""``python -m nsk8s`` and the `nsk8s` console script."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run` can answer, Ctrl-C just ends us
    from nsk8s.daemon.loading import foreseen

    loading = foreseen(sys.argv[1:])
    try:
        from nsk8s.cli.main import run

        sys.exit(run(sys.argv[1:], loading))
    finally:
        if loading:
            loading.close()


if __name__ == "__main__":
    main()
