"""Builds the wheel with the files that `trainlab new` writes; pyproject.toml says everything else."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithStack(build_py):
    """Adds the stack, the examples and a lab's template to the package's modules."""

    def run(self) -> None:
        """Copy them; an editable installation finds them at the project's root."""
        super().run()
        if self.editable_mode or self.dry_run:
            return
        stack = runpy.run_path("src/trainlab/lab/stack.py")
        target = Path(self.build_lib, "trainlab/lab")
        shutil.rmtree(target / "files", ignore_errors=True)
        for name, path in stack["carried"](Path()).items():
            (target / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / "files" / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(stack["TEMPLATE"], target / "template", dirs_exist_ok=True, ignore=ignored)


setup(cmdclass={"build_py": WithStack})
