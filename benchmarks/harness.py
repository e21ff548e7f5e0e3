"""What all measurements share: sides in processes and environments of their own, asked in turn; medians; a JSON file.

A measurement asks each side for seconds, in turn, five times or more, and hands rows to `write`: what, ours, peer,
ratio, n, and the quality beside them. Ratios are of medians; the range over the rounds stands beside them, because a
ratio within one round is fair to both sides even where the machine is shared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("COURSE_BUILD", HERE.parent / "build")) / "bench"


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Read ``--quick``, ``--rounds``, ``--threads`` and the integers in ``defaults`` from the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round: does it run?")
    for name, value in {"rounds": 5, "threads": os.cpu_count(), **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = parser.parse_args()
    given.rounds = 1 if given.quick else given.rounds
    return given


def peers_python() -> str:
    """Return the interpreter of the peers' environment, made on first use and whenever ``peers.txt`` changes."""
    wanted, folder = HERE / "peers.txt", BUILD / "peers"
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        print(f"installing {wanted.name} into {folder} ...", flush=True)
        torch = next(line for line in wanted.read_text().splitlines() if line.startswith("torch=="))
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        # torch by itself first, so that what comes later finds it there and asks for no other build of it; torchvision,
        # which nnsight asks for and nothing here uses, away again: beside another build of torch transformers breaks.
        away = [python, "-m", "pip", "uninstall", "--quiet", "-y", "torchvision"]
        for command in ([sys.executable, "-m", "venv", folder], [*pip, torch], [*pip, "-r", wanted], away):
            if subprocess.run(command).returncode:
                raise SystemExit(f"{' '.join(map(str, command))} failed; the peers come from the package index.")
        stamp.write_text(digest)
    return str(python)


class Side:
    """One process that is asked for measurements; between them it sleeps."""

    def __init__(self, name: str, threads: int) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        python = sys.executable if name.startswith("ours") else peers_python()
        script = HERE / "sides" / f"{name.split()[0]}.py"
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",  # or a side that waits would burn a core
            "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE.parent) if name.startswith("ours") else ""}
        self.log = BUILD / f"{name.replace(' ', '_')}.log"
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=self.log.open("w"), env=environment)

    def __call__(self, function: str, **given: object) -> object:
        """Call one of the side's functions."""
        self.process.stdin.write(json.dumps({"function": function, "arguments": given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended; see {self.log}"}
        if "error" in answer:
            raise RuntimeError(f"{function}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def gpt2_shape(ours: Side) -> tuple[str, str]:
    """Have a model of GPT-2 small's shape and 1,024 rows of 128 tokens written; return where they are."""
    model, rows = str(BUILD / "gpt2shape"), str(BUILD / "gpt2_rows.safetensors")
    ours("make_gpt2", folder=model)
    ours("make_rows", file=rows, model=model, n_rows=1024, width=128)
    return model, rows


def alternate(rounds: int, **sides: object) -> dict[str, list[float]]:
    """Call each function once a round, in an order that turns from round to round; return all that they returned."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            found[name].append(sides[name]())
    return found


def compare(what: str, ours: list[float], peer: list[float], unit: str = "s", **rest: object) -> dict[str, object]:
    """Make a row; seconds are better small, rates (a unit with a stroke) better large."""
    faster = [o / p if "/" in unit else p / o for o, p in zip(ours, peer, strict=True)]
    ratio = median(ours) / median(peer) if "/" in unit else median(peer) / median(ours)
    row = {"what": what, "ours": median(ours), "peer": median(peer), "unit": unit, "ratio": ratio,
           "range": [min(faster), max(faster)], "n": len(ours), **rest}
    print(f"{what:68s} {row['ours']:11.4g} {row['peer']:11.4g} {unit:6s} {ratio:6.2f}x  "
          f"[{min(faster):.2f}, {max(faster):.2f}]", flush=True)
    return row


def machine(threads: int) -> dict[str, object]:
    """Describe where this ran."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(": ")[1] for line in info.splitlines() if line.startswith("model name")]
    flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in info]
    return {"processor": (names or [platform.machine()])[0], "cores": os.cpu_count(), "threads": threads,
            "flags": flags, "load_when_written": os.getloadavg()[0], "system": platform.platform()}


def write(name: str, rows: list[dict], versions: dict, threads: int, **rest: object) -> None:
    """Write ``build/bench/NAME.json``, whole or not at all."""
    content = {"name": name, "rows": rows, "versions": versions, "machine": machine(threads), **rest}
    part = BUILD / f"{name}.json.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, BUILD / f"{name}.json")
