"""The full-size model on this machine's CPU: `python tests/golden/full_size.py [--weights DIR]`.

Writes the deterministic full weights (5.5 GB; kept where --weights names a folder), then runs every case in a process
of its own and prints one JSON line each with time and peak memory. Exit status 1 where a limit is passed.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time


@dataclasses.dataclass(frozen=True)
class Case:
    """One run: image side in pixels, frames, tokens that the prompt must have, and the peak memory allowed."""

    side: int
    frames: int
    tokens: int
    dtype: str
    features_only: bool
    limit_gib: float


CASES = {
    "one-view-features-bfloat16": Case(224, 1, 293, "bfloat16", True, 5.0),
    "one-view-float32": Case(224, 1, 293, "float32", False, 14.0),
    "two-900px-frames-float32": Case(900, 2, 5164, "float32", False, 14.0),
}
TEXT = "Solve ARC task 007bbfb7"


def run(name: str, folder: pathlib.Path) -> dict:
    """Run one case in this process."""
    import numpy as np
    import torch

    from bridge import embodiment, observation
    from teacher_torch import taps
    from teacher_torch.groot import checkpoint, inputs, tokenizer

    case = CASES[name]
    started = time.perf_counter()
    model = checkpoint.load(folder, dtype=getattr(torch, case.dtype), features_only=case.features_only)
    loaded = time.perf_counter()
    video = np.random.default_rng(0).integers(0, 256, (1, case.frames, 1, case.side, case.side, 3), np.uint8)
    seen = observation.Observation(video, np.zeros((1, 1, 16), np.float32), (TEXT,), "arc")
    given = inputs.prepare(seen, embodiment.arc(), tokenizer.packaged())
    wanted = ["backbone_features"] if case.features_only else ["backbone_features", "actions"]
    taken = taps.collect(model, given, wanted, noise=None if case.features_only else taps.draw_noise(model, [0]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    finite = all(bool(torch.isfinite(value).all()) for value in taken.values())
    return {
        "case": name,
        "tokens": given.input_ids.shape[1],
        "load_s": round(loaded - started, 1),
        "run_s": round(time.perf_counter() - loaded, 1),
        "peak_gib": round(peak, 2),
        "limit_gib": case.limit_gib,
        "ok": finite and given.input_ids.shape[1] == case.tokens and peak <= case.limit_gib,
    }


def measure(folder: pathlib.Path) -> list[dict]:
    """Every case in a fresh process."""
    results = []
    for name in CASES:
        command = [sys.executable, __file__, "--weights", str(folder), "--case", name]
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(json.dumps(results[-1]), flush=True)
    return results


def write_weights(folder: pathlib.Path) -> None:
    """The full deterministic weights, where they are not there yet."""
    if not (folder / "config.json").is_file():
        script = pathlib.Path(__file__).with_name("weights.py")
        subprocess.run([sys.executable, script, "full", folder], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=pathlib.Path, help="folder of the full weights, written if empty")
    parser.add_argument("--case", choices=CASES, help="run this one here instead of all in processes of their own")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run(args.case, args.weights)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.weights or pathlib.Path(temporary)
        write_weights(folder)
        return 0 if all(result["ok"] for result in measure(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
