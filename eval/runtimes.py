"""What runs an exported program: XLA, onnxruntime or OpenVINO, each imported when it is asked for. Belongs to
eval/policy.py, imports none of ours either, and may be copied with it."""

import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[dict[str, np.ndarray]], dict[str, Any]]
"""From checked inputs by name to the fields of a decision."""
PLATFORMS = {"gpu": "cuda", "rocm": "rocm"}
"""Platforms of programs by jax's own names, where they differ."""
MODEL = "model.onnx"
ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "dxg")
"""Devices of Linux that mean a GPU or TPU."""
LARGE = 10_000_000
"""Values from which a student is run by OpenVINO on a CPU."""
OUTPUT = "decision."
"""Begins the name of every output of the model; the path to a field follows."""


class Unusable(ValueError):
    """The runtime is missing, or does not fit the folder."""


def start(runtime: str, folder: pathlib.Path, meta: dict[str, Any]) -> Run:
    """The program of an artifact, ready to run; Unusable says what is missing and how to get it."""
    return RUNTIMES[best(meta) if runtime == "auto" else runtime](folder, meta)


def best(meta: dict[str, Any]) -> str:
    """OpenVINO on a CPU for a large student, where it is installed and the folder has its model; else XLA.

    Measured (eval/RESULTS.md): OpenVINO takes 0.57 of XLA's time at 26.1 M values, but twice its time at 0.87 M.
    """
    accelerated = any(next(pathlib.Path("/dev").glob(name), None) for name in ACCELERATORS)
    there = MODEL in meta["files"] and importlib.util.find_spec("openvino") is not None
    return "openvino" if there and not accelerated and meta["parameters"] >= LARGE else "xla"


def xla(folder: pathlib.Path, meta: dict[str, Any]) -> Run:
    """The StableHLO program with its weights on jax's default device."""
    import jax
    import jax.export
    import safetensors.numpy

    here = PLATFORMS.get(jax.default_backend(), jax.default_backend())
    if here not in meta["platforms"]:
        raise Unusable(
            f"{folder} was exported for {', '.join(meta['platforms'])}, jax runs on {here} here: "
            f"set JAX_PLATFORMS, or export with --platforms {here}"
        )
    try:
        program = jax.export.deserialize(bytearray((folder / "program").read_bytes()))
    except Exception as error:  # jax names neither the file nor the versions
        made = meta["versions"]["jax"]
        raise Unusable(
            f"{folder / 'program'} was exported with jax {made} and jax {jax.__version__} cannot read it ({error}): "
            f"install jax {made}, or export again with this one"
        ) from error
    held = jax.device_put(safetensors.numpy.load_file(folder / "weights.safetensors"))
    call = jax.jit(program.call)
    return lambda given: jax.device_get(call(held, given))


def onnxruntime(folder: pathlib.Path, meta: dict[str, Any]) -> Run:
    """The model in float32, on a GPU where this onnxruntime has one."""
    path = _model(folder, meta)
    try:
        import onnxruntime as package
    except ImportError as error:
        raise _missing("onnxruntime", error) from error
    usable = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
              if name in package.get_available_providers()]  # fmt: skip
    try:
        session = package.InferenceSession(path, providers=usable)
    except Exception as error:
        raise _refused(path, f"onnxruntime {package.__version__}", error) from error
    names = [output.name for output in session.get_outputs()]
    wanted = [each.name for each in session.get_inputs()]

    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {name: given[name] for name in wanted}), strict=True))

    return _row_by_row(run)


def openvino(folder: pathlib.Path, meta: dict[str, Any]) -> Run:
    """The model on the CPU: an artifact in float32 in float32, any other in bfloat16 where the CPU computes it."""
    path = _model(folder, meta)
    sys.modules.setdefault("openvino_telemetry", None)  # it would fork this process and report to its makers
    try:
        import openvino as package
    except ImportError as error:
        raise _missing("openvino", error) from error
    precision = "f32" if meta["dtype"] == "float32" else "bf16"
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        model = package.compile_model(path, "CPU", options)
    except Exception as error:
        raise _refused(path, f"OpenVINO {package.__version__}", error) from error
    request, wanted = model.create_infer_request(), [name for each in model.inputs for name in each.names]

    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A value may have several names here: an input that is passed on as it is, outputs that are one.
        found = request.infer({name: given[name] for name in wanted if name in given}, share_inputs=True)
        return {name: found[port].copy() for port in model.outputs for name in port.names if name.startswith(OUTPUT)}

    return _row_by_row(run)


RUNTIMES = {"xla": xla, "onnxruntime": onnxruntime, "openvino": openvino}


def _model(folder: pathlib.Path, meta: dict[str, Any]) -> pathlib.Path:
    if MODEL not in meta["files"]:
        raise Unusable(
            f"{folder} has no {MODEL}: export with it, python -m eval.export --run RUN --out ARTIFACT --onnx"
        )
    return folder / MODEL


def _missing(package: str, error: ImportError) -> Unusable:
    return Unusable(f"runtime {package} is not installed ({error}): pip install {package}, or use the extra `onnx`")


def _refused(path: pathlib.Path, reader: str, error: Exception) -> Unusable:
    return Unusable(f"{reader} cannot read {path} ({error}): use a newer one, or export again")


def _row_by_row(run: Run) -> Run:
    """For a model of one observation: more are answered one after another."""

    def batched(given: dict[str, np.ndarray]) -> dict[str, Any]:
        count = len(given["video"])
        if count == 1:
            return _nested(run(given))
        rows = [{name: value[row : row + 1] if value.ndim else value for name, value in given.items()}
                for row in range(count)]  # fmt: skip
        found = [run(row) for row in rows]
        return _nested({name: np.concatenate([one[name] for one in found]) for name in found[0]})

    return batched


def _nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """`decision.energy.vision` -> {"energy": {"vision": ...}}."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        field, _, key = name.removeprefix(OUTPUT).partition(".")
        if key:
            found.setdefault(field, {})[key] = value
        else:
            found[field] = value
    return found
