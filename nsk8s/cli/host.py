"""`doctor` and `completion`: about this host and this shell, not about a cluster."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def doctor(output: str) -> int:
    """Check what this host and its kernel offer, and say what to do about what is missing. Exits with 1
    if something that is needed is missing."""
    from nsk8s.kernel import probe

    findings = probe.examine()
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2).decode())
    else:
        for finding in findings:
            mark = "ok" if finding.ok else ("MISSING" if finding.needed else "absent")
            click.echo(f"{mark:8} {finding.subject}: {finding.detail}")
            if not finding.ok and finding.remedy:
                click.echo(f"{'':8} {finding.remedy}")
    return int(any(finding.needed and not finding.ok for finding in findings))


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for bash, zsh or fish; it knows commands, types and the names of
    pods, services and nodes.

    \b
    Example:
      source <(nsk8s completion bash)
    """
    from click.shell_completion import get_completion_class

    from nsk8s.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None  # the choice above names only shells that click knows
    click.echo(found(cli, {}, "nsk8s", "_NSK8S_COMPLETE").source())
