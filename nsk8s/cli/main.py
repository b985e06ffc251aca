"""The list of commands, found lazily, and the one place where errors become words and exit codes.

0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from nsk8s import __version__
from nsk8s.errors import NsK8sError

if TYPE_CHECKING:
    from nsk8s.daemon.loading import Loading

INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""

COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("lifecycle", "up", "Build the cluster that FILES describe, or change it to be that."),
    "down": ("lifecycle", "down", "Take a cluster down and leave nothing behind."),
    "ls": ("lifecycle", "ls", "List the clusters of this host."),
    "kubeconfig": ("kubeconfig", "kubeconfig", "Print the cluster's kubeconfig, or add it to your own."),
    "kubectl": ("kubeconfig", "kubectl", "Run the real kubectl against the cluster."),
    "apply": ("apply", "apply", "Apply manifests to a running cluster."),
    "delete": ("apply", "delete", "Delete objects by name, by label or by file."),
    "get": ("get", "get", "Show objects."),
    "describe": ("describe", "describe", "Show one object in detail."),
    "expose": ("expose", "expose", "Make a Service for a pod, deployment, replica set or service."),
    "scale": ("label", "scale", "Set the number of replicas."),
    "label": ("label", "label", "Set or remove labels."),
    "node": ("node", "node", "Stop a node's kubelet, as if it had crashed, or start it again."),
    "exec": ("inside", "exec_", "Run a command in a pod, a node or a client."),
    "logs": ("inside", "logs", "Show what a container wrote."),
    "capture": ("inside", "capture", "Capture packets in a pod, a node or a client."),
    "policy": ("policy", "policy", "Ask what network policies allow, and why."),
    "validate": ("files", "validate", "Check topology files; needs no root and changes nothing."),
    "init": ("files", "init", "Copy an example into the current directory."),
    "schema": ("files", "schema", "Print the JSON Schema of the Cluster document."),
    "doctor": ("host", "doctor", "Check what this host and its kernel offer, and say what to do."),
    "completion": ("host", "completion", "Print the completion script for bash, zsh or fish."),
}
"""Command -> module in `nsk8s.cli`, function, one line of help."""


class Lazy(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"nsk8s.cli.{module}"), function)
        assert isinstance(command, click.Command)
        _name_variables(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every option can be given as an environment variable, NSK8S_<COMMAND>_<OPTION>; the flag wins.",
)
@click.version_option(__version__, prog_name="nsk8s")
def cli() -> None:
    """Hold a Kubernetes cluster's network in your hand: every node and pod a real network namespace,
    every packet through the real kernel, on one Linux host.

    \b
      nsk8s init article && cd article
      sudo nsk8s up topology.yaml
      sudo nsk8s apply -f nginx-pod.yaml
      sudo nsk8s get pods -o wide
      sudo nsk8s capture node/w1 -i flannel.1
    """


def _name_variables(command: click.Command, name: str) -> None:
    """Give every option, those of commands below as well, its environment variable."""
    for option in command.params:
        if isinstance(option, click.Option):
            own = option.envvar if isinstance(option.envvar, str) else None
            option.envvar = [word for word in (variable(name, option), own) if word]
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            _name_variables(one, f"{name}_{below}")


def variable(command: str, option: click.Option) -> str:
    """The environment variable of an option: ``NSK8S_GET_OUTPUT``, ``NSK8S_APPLY_FILENAME``."""
    longest = max((*option.opts, *option.secondary_opts), key=lambda word: word.startswith("--"))
    return f"NSK8S_{command}_{longest.lstrip('-')}".replace("-", "_").upper()


def run(arguments: Sequence[str], loading: Loading | None = None) -> int:
    """Run one command line, with a control plane's code that is `loading` already; returns its exit code and
    never raises."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result = cli.main(list(arguments), prog_name="nsk8s", standalone_mode=False, obj=loading)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except NsK8sError as error:
        from nsk8s.cli.failures import say

        say(error)
        return error.exit_code
    except SystemExit:  # click's way to say that the reader of our output has gone (| head)
        return _unread()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _unread()
        if error.errno in (errno.ENOSPC, errno.EIO):
            with suppress(OSError):
                click.echo(f"error: cannot write the output: {error.strerror}", err=True)
            _unread()
            return 1
        return _mistake(error)
    except Exception as error:  # noqa: BLE001  # the last line of defence: it is reported
        return _mistake(error)


def _unread() -> int:
    """Nobody reads our output: let Python's own last flush write to nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _mistake(error: Exception) -> int:
    """An error that nobody foresaw: one line, and the traceback in a file."""
    import tempfile
    import traceback

    where = "nowhere, for no file can be written"
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile("w", prefix="nsk8s-", suffix=".traceback", delete=False) as file,
    ):
        traceback.print_exception(error, file=file)
        where = file.name
    click.echo(f"error: a mistake in nsk8s: {type(error).__name__}: {error}", err=True)
    click.echo(f"hint: please report it; the traceback is in {where}", err=True)
    return 1
