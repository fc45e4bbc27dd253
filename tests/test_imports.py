"""The import rule of the design: who may import whom among our packages, and that torch stays on the teacher's side."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ALLOWED = {
    "bridge": set(),
    "student_jax": set(),
    "teacher_torch": {"bridge"},
    "train": {"bridge", "student_jax"},
    "eval": {"bridge", "student_jax", "train"},
}
FORBIDDEN = {
    "bridge": {"torch", "transformers", "jax", "jaxlib", "flax", "optax", "orbax"},
    "teacher_torch": {"jax", "jaxlib", "flax", "optax", "orbax"},
    "student_jax": {"torch", "transformers", "optax", "orbax", "tyro", "tensorstore"},
    "train": {"torch", "transformers"},
    "eval": {"torch", "transformers"},
}
RUNTIME_ONLY = {"numpy", "jax", "flatbuffers", "safetensors", "tokenizers", "onnxruntime", "openvino"}
COPIED = {"eval/client.py": {"numpy", "msgpack", "zmq"}, "eval/openpi_client.py": {"numpy", "msgpack", "websockets"}}


def imported(path: pathlib.Path) -> set[str]:
    """Top-level names of every import in a file, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(path.relative_to(ROOT).parts[0] if node.level else node.module.partition(".")[0])
    return names


def modules(*packages: str) -> list[str]:
    """Dotted names of every module in these packages."""
    files = (file for package in packages for file in sorted((ROOT / package).rglob("*.py")))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name != "__init__.py"]


def import_all(names: list[str], *, blocked: set[str]) -> subprocess.CompletedProcess:
    """Import the modules in a fresh interpreter in which the blocked packages cannot be imported."""
    blocks = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(blocked))
    imports = "".join(f"importlib.import_module({name!r})\n" for name in names)
    program = f"import importlib, sys\n{blocks}{imports}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


def breaches(path: pathlib.Path) -> set[str]:
    """What a file imports although it may not."""
    names, package = imported(path), path.relative_to(ROOT).parts[0]
    if path in (ROOT / "eval" / "policy.py", ROOT / "eval" / "runtimes.py"):  # ship alone with an artifact
        return names - RUNTIME_ONLY - set(sys.stdlib_module_names)
    return names & (set(ALLOWED) - {package} - ALLOWED[package] | FORBIDDEN[package])


@pytest.mark.parametrize("package", ALLOWED)
def test_only_allowed_imports(package):
    found = {str(file.relative_to(ROOT)): breaches(file) for file in sorted((ROOT / package).rglob("*.py"))}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize("name", COPIED)
def test_clients_can_be_copied_out_of_the_project(name):
    assert imported(ROOT / name) - set(sys.stdlib_module_names) == COPIED[name]


def test_everything_but_the_teacher_imports_without_torch():
    result = import_all(modules("bridge", "student_jax", "train", "eval"), blocked={"torch", "transformers"})
    assert result.returncode == 0, result.stderr


def test_bridge_imports_without_torch_and_jax():
    result = import_all(modules("bridge"), blocked=FORBIDDEN["bridge"])
    assert result.returncode == 0, result.stderr


def test_student_imports_without_our_other_packages():
    result = import_all(modules("student_jax"), blocked={*ALLOWED, "torch", "transformers"} - {"student_jax"})
    assert result.returncode == 0, result.stderr


def test_the_tests_see_a_forbidden_import():
    assert import_all(["torch.nn"], blocked={"torch"}).returncode != 0
    assert "pytest" in imported(pathlib.Path(__file__))


@pytest.mark.parametrize("command", ["train.main", "eval.benchmark", "eval.export"])
def test_a_base_install_runs_the_students_commands(command):
    extras = {"pyarrow", "av", "metaworld", "mujoco", "gymnasium", "torch", "transformers", "zmq", "websockets"}
    extras |= {"onnx", "onnxruntime", "openvino"}
    result = import_all([command], blocked=extras)
    assert result.returncode == 0, result.stderr
