"""How a verb answers: one result on stdout as a table or as JSON, notices on stderr, an exit code.

Imports only what ``--help`` needs; rich and everything else come late.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from edgekd.errors import EdgeKDError, InputError, MachineError, UsageError
from edgekd.interrupts import check_interrupt, remembered_interrupts
from edgekd.json_values import replace_non_finite
from edgekd.tables import Table

INTERNAL_ERROR = EdgeKDError.exit_code
INTERRUPTED = 130
# Packages that whole verbs need from their first import on, and the extra that brings them.
EXTRAS = dict.fromkeys(
    ("torch", "monai", "lightning_fabric", "safetensors", "matplotlib", "onnx", "onnxscript"), "train"
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Answer:
    """What a verb found.

    Attributes:
        data: the JSON form; NaN becomes null.
        tables: the form for people.
        lines: text printed below the tables.
        exit_code: 0, 1 where a gate said no, 2 where a part of the input was unreadable, 130 where Ctrl-C
            left a part of it undone.
    """

    data: Mapping[str, Any]
    tables: Sequence[Table] = field(default=())
    lines: Sequence[str] = field(default=())
    exit_code: int = 0


def answer_with(verb: Callable[..., Answer | None]) -> Callable[..., None]:
    """Give a verb ``--json``, ``--quiet`` and ``--debug``, print its answer and end with its exit code.

    A verb that returns None prints nothing: another process of the same run answers.
    The verb receives ``quiet`` (true with ``--json`` as well) where it has a parameter of that name.
    """
    signature = inspect.signature(verb)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "quiet"]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("as_json", JsonFlag), ("quiet", QuietFlag), ("debug", DebugFlag))
    ]

    @functools.wraps(verb)
    def answered(*, as_json: bool, quiet: bool, debug: bool, **options: Any) -> None:
        if "quiet" in signature.parameters:
            options["quiet"] = quiet or as_json
        raise typer.Exit(_run(functools.partial(verb, **options), as_json=as_json, debug=debug))

    answered.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    answered.__annotations__ = {p.name: p.annotation for p in (*own, *flags)}
    return answered


def run_app(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a Typer app and return its exit code; wrong usage is one line, and JSON with ``--json``."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        # Closed by the caller, `>&-`: who wants no answer still gets the exit code.
        sys.stdout = io.StringIO()
    _print_any_text()
    try:
        # Without arguments: the help, as an answer and not as an error.
        return int(app(args=list(arguments) or ["--help"], standalone_mode=False) or 0)
    except Exception as error:
        # Typer's usage errors have no public base class; each can say itself, and knows its context.
        usage: Any = error
        if not hasattr(usage, "format_message"):
            raise
        message = usage.format_message().rstrip(".")
        if not message:  # a group without its verb: what it has to say is its help
            usage.show()
            return UsageError.exit_code
        path = usage.ctx.command_path if usage.ctx is not None else "edgekd"
        text = f"{message}. Next: {path} --help"
        _print_error(text, UsageError.exit_code, as_json="--json" in arguments, debug="--debug" in arguments)
        return UsageError.exit_code


def print_notice(text: str, *, quiet: bool = False) -> None:
    """Print one line for people on stderr."""
    if not quiet:
        print(text, file=sys.stderr)  # noqa: T201


def _run(verb: Callable[[], Answer | None], *, as_json: bool, debug: bool) -> int:
    try:
        # Printing is part of the verb: what fails there must not end in 1, which is a gate's no.
        with remembered_interrupts():
            answer = verb()
            if answer is None or answer.exit_code == 0:
                check_interrupt()
            return _print_answer(answer, as_json=as_json)
    except KeyboardInterrupt as interrupt:
        _print_error(str(interrupt) or "interrupted", INTERRUPTED, as_json=as_json, debug=debug)
        return INTERRUPTED
    except EdgeKDError as error:
        _print_error(str(error), error.exit_code, as_json=as_json, debug=debug)
        return error.exit_code
    except Exception as error:
        known = _find_missing_extra(error) or _find_missing_right(error)
        if known is not None:
            _print_error(str(known), known.exit_code, as_json=as_json, debug=debug)
            return known.exit_code
        what = f"internal error: {type(error).__name__}: {error}"
        text = f"{what}. Next: run it again with --debug and report it"
        _print_error(text, INTERNAL_ERROR, as_json=as_json, debug=debug)
        return INTERNAL_ERROR


def _print_answer(answer: Answer | None, *, as_json: bool) -> int:
    """Print what a verb found and return its exit code."""
    if answer is None:
        return 0
    try:
        if as_json:
            # Beside JSON's own values an answer holds paths.
            text = json.dumps(replace_non_finite(answer.data), indent=2, allow_nan=False, default=os.fspath)
            sys.stdout.write(text + "\n")
        else:
            _print_tables(answer)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on, as after `| head`: the verb's own verdict stands.
        _drop_output()
    except OSError as error:
        _drop_output()
        raise MachineError("the answer cannot be written", received=error.strerror or error) from error
    return answer.exit_code


def _drop_output() -> None:
    """Let what is left in the buffer of stdout go nowhere, so that Python's exit does not fail on it."""
    with contextlib.suppress(io.UnsupportedOperation):  # of a stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _find_missing_right(error: Exception) -> EdgeKDError | None:
    """Return the error for a file that this user may not read or write."""
    if not isinstance(error, PermissionError) or error.filename is None:
        return None
    return InputError(
        f"{error.filename} cannot be used",
        received=(error.strerror or "permission denied").lower(),
        action="give this user the right to read it, or to write into its folder, or run as its owner",
    )


def _find_missing_extra(error: Exception) -> EdgeKDError | None:
    """Return the error for a verb whose packages come with an extra that is not installed."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in EXTRAS:
        return None
    action = f'pip install "edgekd[{EXTRAS[package]}]"'
    return MachineError(f"this needs the package {package}, which is not installed", action=action)


def _print_error(text: str, exit_code: int, *, as_json: bool, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    one_line = " ".join(text.split())
    sys.stderr.write(f"edgekd: {one_line}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": one_line, "exit_code": exit_code}, indent=2) + "\n")


def _print_tables(answer: Answer) -> None:
    from edgekd.terminal_tables import build_console, print_table

    _print_any_text()
    # A pipe has no width: rich would fold tables at 80 columns there.
    console = build_console(None if sys.stdout.isatty() else 200)
    for table in answer.tables:
        print_table(console, table)
    for line in answer.lines:
        console.print(line, markup=False, soft_wrap=True)


def _print_any_text() -> None:
    """Let stdout print "?" for what its encoding lacks: a log in ASCII must not lose a whole answer."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
