"""Print the lowest version that pyproject.toml allows of every library, as pip's constraints: for `make test-lowest`.

torch is left out: whoever runs the tests says which (TORCH=torch==…), because its old builds bring gigabytes of CUDA.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
    wanted = Requirement(line)
    (lowest,) = [one.version for one in wanted.specifier if one.operator == ">="]
    if wanted.name != "torch":
        print(f"{wanted.name}=={lowest}")
