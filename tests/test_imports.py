"""Imports go the way of the data, and no stage knows a later one."""

import ast
from pathlib import Path

ORDER = ["errors", "system_errors", "terminal", "hints", "small_files", "safe_yaml", "output_lock", "types", "progress", "plugins", "cache", "cache_entries", "config_stage", "readout", "config_data", "config_fit", "config",
         "config_files",
         "evaluate", "data", "output_folder", "models", "prompts", "checks", "engine", "activations", "hidden", "knowledge", "adapters", "generation", "probes", "detectors", "analyses",
         "report", "screening", "planning", "pipeline", "api", "integrations", "serving", "cli"]  # fmt: skip
ROOT = Path(__file__).parents[1] / "src" / "adapterprobe"


def stage_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "adapterprobe" and len(parts) > 1 else None


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_direction():
    wrong, seen = [], 0
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ("__init__", "presets"):
            continue
        for name in imports(path):
            stage = stage_of(name)
            if stage in ORDER:
                seen += 1
                if ORDER.index(stage) > ORDER.index(parts[0]):
                    wrong.append(f"{'/'.join(parts)} imports {name}")
    assert not wrong
    assert seen > 50


def test_the_map_in_the_readme_is_the_order():
    """Every room that there is, from the ground up."""
    text = (ROOT.parents[1] / "README.md").read_text("utf-8")
    lines = text.split("src/adapterprobe/\n")[1].split("```")[0].splitlines()
    shown = [line.split()[0].rstrip("/").removesuffix(".py") for line in lines if line.strip()]
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"presets"}
    assert set(shown) == rooms | {"knowledge"}
    assert shown == sorted(shown, key=ORDER.index)


def test_importing_the_package_is_quick_and_silent():
    import subprocess
    import sys

    code = "import adapterprobe, sys; print('torch' in sys.modules, adapterprobe.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False" and done.stderr == ""
    code = (
        "import adapterprobe; print(adapterprobe.activations.open, adapterprobe.probes.available(), adapterprobe.run)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "logistic" in done.stdout and done.stderr == ""


def modules_at_run_time(path: Path, module: str):
    """The modules of ours that a file imports, in functions too, but not for types alone."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` is an import of that module.
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.startswith("adapterprobe") and name != module)


def test_no_module_imports_itself_by_way_of_others():
    """Within a room too. The `__init__` of a package only gathers what its modules have."""
    files = {
        ".".join(("adapterprobe", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    asked = {
        name: {other for other in modules_at_run_time(path, name) if other in files} for name, path in files.items()
    }
    circles = []

    def follow(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circles.append(" > ".join((*way[way.index(name) :], name)))
        elif name not in done:
            for other in sorted(asked[name]):
                follow(other, (*way, name))
            done.add(name)

    done: set[str] = set()
    for name in sorted(files):
        follow(name, ())
    assert not circles
    assert sum(map(len, asked.values())) > 500
