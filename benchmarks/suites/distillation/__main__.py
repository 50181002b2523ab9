"""The commands of the suite; see the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.benchmarks.suites.distillation.experiments import build_experiments
from edgekd.benchmarks.suites.distillation.plan import Plan, find_cell, list_cells, read_plan, write_plan
from edgekd.benchmarks.suites.distillation.report import write_report
from edgekd.benchmarks.suites.distillation.results import read_results
from edgekd.errors import build_unknown_name_error

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Argument(help="Folder of the experiment.")]


@app.command()
def plan(
    out: Out,
    experiment: Annotated[
        str, typer.Option(help="table, mixtures, budget, ablation, numbers or quarter.")
    ] = "table",
    size: Annotated[int | None, typer.Option(help="Side of the images, pixels.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Set below EDGEKD_DATA, or phantom; repeatable.")
    ] = None,
    mask_part: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Part of the training groups that keep their masks.")
    ] = None,
) -> None:
    """Write the cells of an experiment and the makefile that runs them: make -C OUT -j 2."""
    experiments = build_experiments()
    if experiment not in experiments:
        raise build_unknown_name_error("experiment", experiment, experiments)
    chosen = experiments[experiment]
    changes: dict[str, Any] = {"sets": sets, "mask_part": mask_part}
    changes["common"] = None if size is None else {**chosen.common, "image_size": size}
    given = {name: value for name, value in changes.items() if value}
    chosen = Plan.model_validate({**chosen.model_dump(), **given})
    write_plan(chosen, out)
    typer.echo(f"{len(list_cells(chosen))} cells; run them with: make -C {out} -j 2")


@app.command()
def cell(
    out: Out,
    name: Annotated[str, typer.Argument(help="Name of the cell.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
) -> None:
    """Run one cell, or what is left of it."""
    # Only a cell needs torch; plan and report do not.
    from edgekd.benchmarks.suites.distillation.cells import run_cell

    experiment = read_plan(out)
    typer.echo(run_cell(experiment, find_cell(experiment, name), out, threads=threads))


@app.command()
def report(out: Out) -> None:
    """Write report.md, gains.json and, of one method, gains.png from the cells that have finished."""
    typer.echo(write_report(read_results(read_plan(out), out), out))


if __name__ == "__main__":
    app()
