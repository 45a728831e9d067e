"""Print the lower bounds of pyproject.toml as constraints for ``make test-minimum``; needs no package."""

import re
import tomllib
from pathlib import Path


def lower_bounds(text):
    """Return a requirement ``name==version`` for each dependency of the package that has a lower bound."""
    bounds = []
    for dependency in tomllib.loads(text)["project"]["dependencies"]:
        found = re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", dependency)
        if found is None:
            raise ValueError(f"pyproject.toml: {dependency} has no lower bound of the form name>=version")
        # 2.0 means any 2.0.x: the newest of them has the wheels and the fixes
        name, version = found.groups()
        bounds.append(f"{name}=={version}.*" if version.count(".") < 2 else f"{name}=={version}")
    return bounds


if __name__ == "__main__":
    print("\n".join(lower_bounds((Path(__file__).parents[1] / "pyproject.toml").read_text())))
