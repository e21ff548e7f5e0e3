"""Imitate a hosted notebook, run the first cell in it, and show what pip changed: nothing that was there and fits.

1. A venv gets what such a machine has: its own torch, numpy, transformers, old widgets and an old kernel.
2. The files there can no longer be written, renamed or removed; new ones can be added. That holds for another user
   only, so as root what follows runs as nobody; without root the comparison at the end is all the proof there is.
3. A notebook is executed there with the machine's own nbconvert: the setup cell, a wheel of this checkout in place of
   the repository's address; a lab; a slider that is moved. Then the same once more, which must install nothing.
4. `pip freeze` before and after, and every file that was there, byte count and time: the same. On the machine whose
   transformers is out of range, whatever moved must have been named by the cell.

Run by `make test-colab`; a machine takes some minutes and gigabytes. ``python tests/colab_imitation.py FOLDER older``.
"""

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from course_utils.cli import badges
from course_utils.setup import normal

ROOT = Path(__file__).parents[1]
NOBODY = 65534
KERNEL = ["ipykernel==6.17.1", "ipython==7.34.0", "ipywidgets==7.7.1", "jupyter-client==7.4.9", "tornado==6.5.1",
          "requests==2.32.4", "nbconvert==7.16.6"]
OLDER = [*KERNEL, "numpy==2.0.2", "pandas==2.2.2", "scipy==1.15.3", "scikit-learn==1.6.1", "matplotlib==3.10.0",
         "datasets==4.0.0", "pyarrow==18.1.0", "statsmodels==0.14.5", "nltk==3.9.1", "pillow==11.3.0", "psutil==5.9.5",
         "pyyaml==6.0.2", "tqdm==4.67.1", "protobuf==5.29.5", "plotly==5.24.1", "fsspec==2025.3.0", "packaging==25.0",
         "typeguard==4.4.4"]
MACHINES = {  # what is there before; torch is given on the command line
    "older": [*OLDER, "transformers==5.9.0", "huggingface-hub==1.5.0"],
    "newer": [*KERNEL, "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "datasets", "transformers"],
    "unfit": [*OLDER, "transformers==4.57.6"],  # below the range: has to be replaced, and is named
}
CHECKS = ["""\
import course_utils, ipywidgets, numpy, torch, transformers
lab = course_utils.open_lab()
acts = course_utils.harvest(lab, lab.middle_hook, 2000)
sae = course_utils.ready_sae(lab, lab.middle_hook)
print(float(sae.encode(acts.x).mean()))
print({one.__name__: one.__version__ for one in (torch, numpy, transformers, ipywidgets)})""",
          """\
import matplotlib.pyplot as plt
made, seen = [], []
old = ipywidgets.SelectionSlider.__init__
ipywidgets.SelectionSlider.__init__ = lambda self, *a, **k: (made.append(self), old(self, *a, **k))[1]
course_utils.explore(lambda v: (seen.append(v), plt.plot([0, v])[0].axes)[1], "height", [1, 2, 3])
made[0].value = 2
assert seen == [1, 3], seen"""]


def main() -> int:
    """Do all that for one machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("machine", choices=MACHINES)
    pinned = next(ln for ln in (ROOT / "constraints.txt").read_text().splitlines() if ln.startswith("torch=="))
    parser.add_argument("--torch", default=pinned, help="what is there of torch (default: %(default)s)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that nobody may read, if run as root")
    args = parser.parse_args()
    folder = args.folder.resolve() / args.machine
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = Machine(folder, args.python)
    machine.build([args.torch, *MACHINES[args.machine]])
    before, files = machine.freeze(), machine.files()
    if args.machine != "unfit":
        machine.lock()
    first, second = (machine.execute(f"run-{i}.ipynb") for i in (1, 2))
    after, now = machine.freeze(), machine.files()
    print("\n".join(difflib.unified_diff(before, after, "before", "after", lineterm="", n=0)))
    print(first, second, sep="\n--- the second time\n")
    moved = sorted({*before} - {*after})
    changed = [name for name, stamp in files.items() if now.get(name) != stamp]
    unsaid = [line for line in moved if f"{normal(line.split('==')[0])} " not in first.lower()]
    print(f"{args.machine}: {len(before)} distributions before, {len(after)} after; moved: {moved or 'none'}; "
          f"{len(changed)} of {len(files)} files changed.")
    return int(bool(unsaid or "Installing" in second) if args.machine == "unfit" else bool(moved or changed))


class Machine:
    """A venv that plays a hosted machine."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        self.home, self.locked = folder / "home", False
        self.home.mkdir()
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)

    @property
    def site(self) -> Path:
        """Where its distributions are."""
        return next((self.folder / "venv" / "lib").glob("python3*/site-packages"))

    def pip(self, *arguments: str) -> str:
        """Call its pip, as whoever we are."""
        call = [str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments]
        return subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout

    def build(self, requirements: list[str]) -> None:
        """Install what is there before, and make a wheel of the course."""
        self.pip("install", "-q", *requirements)
        self.pip("wheel", "-q", "--no-deps", "-w", str(self.home), str(ROOT))

    def freeze(self) -> list[str]:
        """Return what is installed, line by line; pip and setuptools as well."""
        return self.pip("freeze", "--all").splitlines()

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of every file that belongs to a distribution."""
        found = [path for path in self.site.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def lock(self) -> None:
        """Let nobody change what is there; the sticky bit keeps entries of a folder that anybody may add to."""
        for path in [self.home, *self.home.iterdir(), *(self.folder / "venv").rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o1777 if path.is_dir() else 0o555)
        self.locked = True

    def execute(self, name: str) -> str:
        """Execute the notebook on it and return what its cells said."""
        (wheel,) = self.home.glob("*.whl")
        cell = badges.setup_cell("a/b").replace("git+https://github.com/a/b", str(wheel))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in [cell, *CHECKS]])
        nbformat.write(notebook, self.home / name)
        (self.home / name).chmod(0o666)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.locked and os.geteuid() == 0 else {}
        call = [str(self.python), "-m", "nbconvert", "--to", "notebook", "--execute", "--output", f"out-{name}", name]
        done = subprocess.run(call, cwd=self.home, env=inherited | {"HOME": str(self.home), "OMP_NUM_THREADS": "1"},
                              stderr=subprocess.PIPE, text=True, **who)
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        cells = json.loads((self.home / f"out-{name}").read_text())["cells"]
        return "\n".join("".join(out.get("text", "")) for cell in cells for out in cell["outputs"] if "text" in out)


if __name__ == "__main__":
    sys.exit(main())
