"""How errors are told, and going on after one of several objects has failed, as kubectl does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from nsk8s.errors import ApiError, NsK8sError, UsageError, UserError


def say(error: NsK8sError) -> None:
    """One error, on standard error: kubectl's words for what the API refuses, and what to do about it."""
    click.echo(_words(error) if isinstance(error, ApiError) else f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


def _words(error: ApiError) -> str:
    """As kubectl's StandardErrorMessage: the causes of an invalid object one a line."""
    if error.reason != "Invalid" or not error.causes:
        return f"Error from server ({error.reason}): {error.message}"
    head = f'The {error.kind.partition(".")[0]} "{error.name}" is invalid:'
    if len(error.causes) == 1:
        return f"{head} {error.causes[0]}"
    return "\n* ".join([f"{head} ", *map(str, error.causes)])


class Failures:
    """Errors met on the way, told at the end. `ignored` is an HTTP code that is none."""

    def __init__(self, *, ignored: int = 0) -> None:
        self.met: list[NsK8sError] = []
        self._ignored = ignored

    @contextmanager
    def each(self) -> Iterator[None]:
        """Around the work on one object: what is refused is kept for the end."""
        try:
            yield
        except UsageError:
            raise
        except UserError as error:
            if not isinstance(error, ApiError) or error.code != self._ignored:
                self.met.append(error)

    def tell(self) -> int:
        """Say all that went wrong; returns the command's exit code."""
        for error in self.met:
            say(error)
        return max((error.exit_code for error in self.met), default=0)
