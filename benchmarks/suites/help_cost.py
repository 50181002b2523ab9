"""What ``edgekd --help`` costs against an empty Typer app with the same verbs and help mode, in pairs.

Both run as whole processes of this interpreter, in turn (A B, B A, …), so that a machine whose speed drifts
slows both alike. The figure is the median of the pairwise ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from edgekd import cli

EMPTY_APP = """
import typer

app = typer.Typer(name="empty", help={help!r}, no_args_is_help=True, add_completion=False)
{groups}

@app.callback()
def root(version: bool = False) -> None:
    pass

{verbs}
app(["--help"])
"""


def measure_help_cost(pairs: int) -> list[tuple[int, int]]:
    """Return ``pairs`` times (edgekd ns, empty app ns), after one pair that is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(_write_empty_app())
        ours = [sys.executable, "-c", "from edgekd.cli import app; app(['--help'])"]
        theirs = [sys.executable, str(empty)]
        times: list[tuple[int, int]] = []
        for index in range(pairs + 1):
            first, second = (ours, theirs) if index % 2 else (theirs, ours)
            taken = {id(command): _time_process(command) for command in (first, second)}
            times.append((taken[id(ours)], taken[id(theirs)]))
    return times[1:]


def _write_empty_app() -> str:
    groups = "".join(
        f"{group.name}_app = typer.Typer(help={group.typer_instance.info.help!r})\n"
        f"app.add_typer({group.name}_app, name={group.name!r}, rich_help_panel={group.rich_help_panel!r})\n"
        for group in cli.app.registered_groups
        if group.typer_instance is not None
    )
    verbs = "".join(
        f"@app.command({command.name!r}, rich_help_panel={command.rich_help_panel!r})\n"
        f"def verb_{command.name}() -> None:\n    {(command.callback.__doc__ or '')!r}\n\n"
        for command in cli.app.registered_commands
        if command.callback is not None
    )
    return EMPTY_APP.format(help=cli.app.info.help, groups=groups, verbs=verbs)


def _time_process(command: list[str]) -> int:
    begin = time.perf_counter_ns()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter_ns() - begin


def main(pairs: Annotated[int, typer.Option(min=3)] = 21) -> None:
    """Print medians and the ratio."""
    times = measure_help_cost(pairs)
    ours, theirs = (statistics.median(column) / 1e6 for column in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    middle = statistics.median(ratios)
    typer.echo(f"edgekd --help {ours:.0f} ms, empty Typer app {theirs:.0f} ms (medians of {pairs} pairs)")
    typer.echo(f"ratio {middle:.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    typer.run(main)
