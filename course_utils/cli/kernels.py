"""One notebook in one kernel: this interpreter, a deadline, a place to stop, and the memory that it took."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

WIDGET = "application/vnd.jupyter.widget-view+json"


class Failure(NamedTuple):
    """Where a notebook stopped: `cell` counts code cells as Jupyter's ``[n]`` does; 0 is before the first."""

    cell: int
    line: str
    error: str


class _ThisInterpreter(KernelSpecManager):
    """Answers every kernel name with this interpreter, so that no installed kernelspec leads elsewhere."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def peak_memory(pid: int) -> int:
    """Return a process's peak memory in bytes; where no peak is kept, what it holds now; 0 if it is gone."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    with suppress(psutil.Error):
        held = psutil.Process(pid).memory_info()
        return getattr(held, "peak_wset", held.rss)
    return 0


def drop_bars(notebook: nbformat.NotebookNode) -> None:
    """Remove progress bars from the outputs: done, they say nothing, and as saved widgets they show 0 %."""
    def is_bar(output: nbformat.NotebookNode) -> bool:
        text = output.get("data", {}).get("text/plain", "") or output.get("text", "")
        return bool(re.search(r"\d%\|.*\|", text)) and (output.output_type != "stream" or output.name == "stderr")

    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_bar(output)]
            kept += [output for output in cell.outputs if WIDGET in output.get("data", {})]
    if not kept:
        notebook.metadata.pop("widgets", None)


class Execution:
    """A notebook being executed.

    Parameters
    ----------
    notebook
        Filled with its outputs in place.
    folder
        Working directory of the kernel.
    timeout
        Seconds for the whole notebook, the start of the kernel included.
    on_cell
        Called after every executed cell.

    Attributes
    ----------
    cell : int
        How many code cells have been started.
    peak : int
        The kernel's peak memory in bytes, as far as seen.
    """

    def __init__(self, notebook: nbformat.NotebookNode, folder: Path, timeout: float,
                 on_cell: Callable[[], object] = lambda: None) -> None:
        self.notebook, self.folder, self.timeout, self.on_cell = notebook, folder, timeout, on_cell
        self.begun, self.cell, self.line, self.peak, self.stopped = time.monotonic(), 0, "", 0, False
        self._manager: AsyncKernelManager | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the kernel while there is one."""
        return getattr(self._manager and self._manager.provisioner, "pid", None)

    def _reached(self, cell: nbformat.NotebookNode, **_: object) -> None:
        if self.stopped:  # stopped before the kernel had a process that could be killed
            raise DeadKernelError("stopped")
        self.cell += 1
        self.line = next(line for line in cell.source.splitlines() if line.strip())

    def _left(self, **_: object) -> None:
        self.peak = max(self.peak, peak_memory(self.pid) if self.pid else 0)
        self.on_cell()

    def run(self, env: dict[str, str], connection_file: Path) -> Failure | None:
        """Execute to the end, an error or the deadline; return where it stopped, or None."""
        # Sockets in a folder of ours need no free ports and let nobody listen; their paths must be short.
        transport = "ipc" if os.name == "posix" and len(str(connection_file)) < 90 else "tcp"
        self._manager = AsyncKernelManager(
            kernel_spec_manager=_ThisInterpreter(), connection_file=str(connection_file), transport=transport)
        client = NotebookClient(
            self.notebook, km=self._manager, shutdown_kernel="immediate",
            record_timing=False,  # timings would make every executed copy differ
            timeout_func=lambda cell: max(1, round(self.begun + self.timeout - time.monotonic())),
            on_cell_execute=self._reached, on_cell_complete=self._left,
            resources={"metadata": {"path": str(self.folder)}})
        try:
            client.execute(env=env, cleanup_kc=True)
        except CellExecutionError as error:
            return Failure(self.cell, self.line, f"{error.ename}: {error.evalue}".strip())
        except CellTimeoutError:
            return Failure(self.cell, self.line, f"past the notebook's time limit of {self.timeout:g} s")
        except DeadKernelError:
            cause = "stopped" if self.stopped else "the kernel died (out of memory?)"
            return Failure(self.cell, self.line, cause)
        except Exception as error:  # whatever it is, it must not take the other notebooks down with it
            return Failure(self.cell, self.line, f"{type(error).__name__}: {error}")
        return None

    def stop(self) -> None:
        """Kill the kernel; the thread that waits for it then comes back."""
        self.stopped = True
        if self.pid:
            with suppress(psutil.Error):
                psutil.Process(self.pid).kill()
