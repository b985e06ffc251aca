"""The list of commands, found lazily, and the one place where errors become words and exit codes.

0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from nsk8s import __version__
from nsk8s.errors import ApiError, NsK8sError

COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("lifecycle", "up", "Build the cluster that FILES describe, or change it to be that."),
    "down": ("lifecycle", "down", "Take a cluster down and leave nothing behind."),
    "ls": ("lifecycle", "ls", "List the clusters of this host."),
    "apply": ("objects", "apply", "Apply manifests to a running cluster."),
    "delete": ("objects", "delete", "Delete objects by name, by label or by file."),
    "get": ("objects", "get", "Show objects."),
    "describe": ("describe", "describe", "Show one object in detail."),
    "expose": ("objects", "expose", "Make a Service for a pod, deployment, replica set or service."),
    "scale": ("objects", "scale", "Set the number of replicas."),
    "label": ("objects", "label", "Set or remove labels."),
    "exec": ("inside", "exec_", "Run a command in a pod, a node or a client."),
    "logs": ("inside", "logs", "Show what a container wrote."),
    "capture": ("inside", "capture", "Capture packets in a pod, a node or a client."),
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
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "NSK8S"},
    epilog="Every option can be given as an environment variable, NSK8S_<COMMAND>_<OPTION>; the flag wins.",
)
@click.version_option(__version__, prog_name="nsk8s")
def cli() -> None:
    """Hold a Kubernetes cluster's network in your hand: every node and pod a real network namespace,
    every packet through the real kernel, on one Linux host.

    \b
      nsk8s init article && cd article
      sudo nsk8s up topology.yaml *.yaml
      sudo nsk8s get pods -o wide
      sudo nsk8s capture node/w1 -i flannel.1
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code and never raises."""
    try:
        result = cli.main(list(arguments), prog_name="nsk8s", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except BrokenPipeError:  # the reader of our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ApiError as refused:
        click.echo(f"Error from server ({refused.reason}): {refused.message}", err=True)
        return refused.exit_code
    except NsK8sError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        return error.exit_code
