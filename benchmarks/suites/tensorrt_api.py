"""Which of the names that EdgeKD uses exist in each TensorRT, read from the binding wheels alone.

    pip download --no-deps --only-binary=:all: tensorrt-cu12-bindings==10.3.0 -d WHEELS      (and others)
    python -m edgekd.benchmarks.suites.tensorrt_api WHEELS/*.whl > tests/data/tensorrt_api.json

A binding wheel holds only the compiled module; the libraries that it links to are replaced by empty ones,
which is enough to import it and to look at its classes. Needs gcc, readelf, nm, and wheels for this CPython.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *sorted((ROOT / "export").glob("tensorrt*.py")),
    *sorted((ROOT / "edgekd" / "runtime").glob("tensorrt*.py")),
)
LIBRARY = ("library", "parsed.library", "self._library")
_LAYERS = "ILayer|IConvolutionLayer|IDeconvolutionLayer|IMatrixMultiplyLayer"
# File and expression → the library's classes one of which has the attribute.
RECEIVERS = {
    ("tensorrt_engine", "config"): "IBuilderConfig",
    ("tensorrt_engine", "parsed.builder"): "Builder",
    ("tensorrt_engine", "allowed"): "IOptimizationProfile",
    ("tensorrt_engine", "parsed.network"): "INetworkDefinition",
    ("tensorrt_engine", "cache"): "ITimingCache",
    ("tensorrt_inspector", "runtime"): "Runtime",
    ("tensorrt_inspector", "engine"): "ICudaEngine",
    ("tensorrt_inspector", "engine.create_engine_inspector()"): "EngineInspector",
    ("tensorrt_library", "runtime"): "Runtime",
    ("tensorrt_network", "builder"): "Builder",
    ("tensorrt_network", "parsed.network"): "INetworkDefinition",
    ("tensorrt_network", "network"): "INetworkDefinition",
    ("tensorrt_network", "parser"): "OnnxParser",
    ("tensorrt_network", "e"): "ParserError",
    ("tensorrt_network", "inputs[0]"): "ITensor",
    ("tensorrt_network", "t"): "ITensor",
    ("tensorrt_network", "tensor"): "ITensor",
    ("tensorrt_network", "layer"): _LAYERS,
    ("tensorrt_network", "layer.get_input(0)"): "ITensor",
    ("tensorrt_network", "layer.get_output(0)"): "ITensor",
    ("tensorrt_network", "layer.get_output(index)"): "ITensor",
    ("tensorrt_options", "config"): "IBuilderConfig",
    ("tensorrt_plan", "self._runtime"): "Runtime",
    ("tensorrt_plan", "self._engine"): "ICudaEngine",
    ("tensorrt_plan", "engine"): "ICudaEngine",
    ("tensorrt_plan", "config"): "IRuntimeConfig",
    ("tensorrt_plan", "self._runtime_cache"): "IRuntimeCache",
    ("tensorrt_plan", "context"): "IExecutionContext",
}
# Methods that we override, and members that the code compares by their names.
BY_NAME = {
    "ILogger": ("log",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "LayerType": ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "DEQUANTIZE", "SHUFFLE", "IDENTITY"),
    "DataType": ("FLOAT", "HALF", "BF16", "INT8", "UINT8"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "HardwareCompatibilityLevel": ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
}


def list_attributes(source: Path) -> Iterator[tuple[str, str, int]]:
    """Yield (expression, attribute, line) of every attribute access in a file."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr, node.lineno


def list_used_names(sources: Sequence[Path] = SOURCES) -> list[str]:
    """Return the dotted names of the library that EdgeKD's files use, sorted: ``Builder.create_network``."""
    names = {f"{owner}.{name}" for owner, members in BY_NAME.items() for name in members}
    for source in sources:
        for expression, attribute, _ in list_attributes(source):
            root, _, owner = expression.rpartition("library")
            if expression in LIBRARY:
                names.add(attribute)
            elif f"{root}library" in LIBRARY and re.fullmatch(r"\.\w+", owner):
                names.add(f"{owner[1:]}.{attribute}")
            elif receiver := RECEIVERS.get((source.stem, expression)):
                names.add(f"{receiver}.{attribute}")
    return sorted(name for name in names if "__" not in name)


def has_name(module: Any, name: str) -> bool:
    """Return whether a module has a dotted name; ``A|B.c`` asks for ``c`` in one of the classes."""
    owners, _, member = name.rpartition(".")
    if not owners:
        return hasattr(module, member)
    return any(hasattr(getattr(module, owner, None), member) for owner in owners.split("|"))


def read_wheel(wheel: Path) -> list[str]:
    """Return the names of ours that a binding wheel lacks."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".so")]
            module = Path(archive.extract(member, folder))
        _write_stand_ins(module, Path(folder))
        command = [sys.executable, "-m", "edgekd.benchmarks.suites.tensorrt_api", "--module", str(module)]
        environment = {**os.environ, "LD_LIBRARY_PATH": folder}
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def _write_stand_ins(module: Path, folder: Path) -> None:
    """Compile empty libraries under the names that a module links to, with the functions it expects."""
    dynamic = subprocess.run(["readelf", "-d", module], check=True, capture_output=True, text=True).stdout
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True
    )
    functions = re.findall(
        r"\bU ((?:create|get|init)\w*(?:Nv|Infer|Plugin)\w*)$", listing.stdout, re.MULTILINE
    )
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for library in re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt)[^\]]*)\]", dynamic):
        options = ["-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library)]
        subprocess.run(["gcc", *options, str(source)], check=True)


def _list_missing(module: Path) -> list[str]:
    specification = importlib.util.spec_from_file_location(module.stem, module)
    if specification is None or specification.loader is None:
        raise ImportError(str(module))
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return [name for name in list_used_names() if not has_name(loaded, name)]


def main() -> None:
    """Print the facts of the wheels named on the command line as JSON."""
    if sys.argv[1] == "--module":
        sys.stdout.write(json.dumps(_list_missing(Path(sys.argv[2]))))
        # The stand-ins cannot be unloaded in order.
        sys.stdout.flush()
        os._exit(0)
    missing = {wheel.name: read_wheel(wheel) for wheel in map(Path, sorted(sys.argv[1:]))}
    sys.stdout.write(json.dumps({"names": list_used_names(), "missing": missing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
