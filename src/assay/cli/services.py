"""`assay services`: the object store, the database and the tracking server of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from assay.services.stack import Stack

app = typer.Typer(
    help="S3, PostgreSQL and MLflow servers on this machine; ASSAY_PROFILE=services makes every command use them.",
    no_args_is_help=True,
)


@app.command()
def up() -> None:
    """Start what does not run of the three servers, on loopback; what runs is left alone."""
    stack = _stack()
    stack.up(tell=lambda line: typer.echo(f"{line} ..."))
    _print(stack)
    typer.echo("\nSet ASSAY_PROFILE=services to use them.")


@app.command()
def down() -> None:
    """Stop the servers; data, credentials and ports stay, and `assay services up` brings them back."""
    _stack().down(tell=lambda line: typer.echo(f"{line} ..."))
    typer.echo("The services are down; their data stays.")


@app.command()
def status() -> None:
    """Show each server's state, process, address and size; the exit code is 1 when one is not up."""
    if not _print(_stack()):
        raise typer.Exit(1)


def _stack() -> Stack:
    from assay.project import Project
    from assay.services.stack import Stack, bypass_proxies

    bypass_proxies()
    return Stack(Project.find())


def _print(stack: Stack) -> bool:
    """Print a table; return whether everything is up."""
    found = stack.status()
    typer.echo(f"{'service':10}{'state':12}{'pid':>8}  {'size':>9}  address")
    for each in found:
        shown = each.state if each.state in ("up", "down") else "no answer"
        size = f"{each.size_bytes / 1e6:,.1f} MB"
        typer.echo(f"{each.name:10}{shown:12}{each.pid or '-':>8}  {size:>9}  {each.address or '-'}")
    for each in found:
        if each.state not in ("up", "down"):
            typer.echo(f"{each.title} does not answer ({each.state}): its log is {stack.log(each.name)}.")
    return all(each.state == "up" for each in found)
