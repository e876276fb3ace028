"""What the optional parts of trainlab need, and what to type where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from trainlab.errors import UserError

_INSTALLED_BY = {  # a module, by what pip is to be told
    "IPython": "trainlab[notebook]",
    "optuna": "trainlab[sweeps]",
    "psycopg": "trainlab[sweeps]",
    "ray": "trainlab[ray]",
    "ipykernel": "trainlab[notebook]",
    "altair": "trainlab[compare]",
    "jinja2": "trainlab[compare]",
    "sklearn": "trainlab[compare]",
    "scipy": "trainlab[compare]",
    "vl_convert": "trainlab[compare]",
    "lightning": "trainlab[lightning]",
    "torch": "trainlab[lightning]",
    "transformers": "trainlab[transformers]",
    "onnx": "trainlab[export]",
    "onnxruntime": "trainlab[export]",
    "onnxscript": "trainlab[export]",
    "fastapi": "trainlab[serve]",
    "multipart": "trainlab[serve]",
    "prometheus_client": "trainlab[serve]",
    "python_multipart": "trainlab[serve]",
    "tokenizers": "trainlab[serve]",
    "uvicorn": "trainlab[serve]",
    "huggingface_hub": "huggingface-hub",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
}


def need(module: str, what: str, package: str = "") -> None:
    """Raise UserError, with what to type, where a module is not installed that `what` needs.

    `package` is what pip is to be told, where it is not the module's usual one.
    """
    if find_spec(module) is None:
        raise _missing(module, what, package)


def explained(error: ModuleNotFoundError, what: str) -> UserError | ModuleNotFoundError:
    """Return what to raise for an import that failed in `what`: with what to type, if it is one of ours."""
    module = (error.name or "").partition(".")[0]
    return _missing(module, what) if module in _INSTALLED_BY and find_spec(module) is None else error


def _missing(module: str, what: str, package: str = "") -> UserError:
    package = package or _INSTALLED_BY[module]
    return UserError(f'{what} needs {module}, which is not installed: pip install "{package}"')
