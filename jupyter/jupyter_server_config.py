"""JupyterLab's settings, for the container and for the local engine alike.

Read by JupyterLab (`--config`), which provides `get_config`.
"""

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.httpserver import HTTPServer

sys.path.append(str(Path(__file__).parent))
import shared
from door import Door, secret_path

PATIENCE = 7.0  # seconds for the cell at work, beside a training's long step and the checkpoint behind it
HASTE = 2.0  # more after a second interrupt, by which the cell ends at once


class PatientKernels(AsyncMappingKernelManager):
    """Interrupts the cell at work and lets it end before its kernel is shut down.

    A training saves a checkpoint first. Jupyter alone tells the kernel in the same moment to end what it has
    started, the data loader's workers for one, and sends SIGTERM soon after.
    """

    async def _async_shutdown_kernel(self, kernel_id, now=False, restart=False):
        kernel = self._kernels.get(kernel_id)
        if kernel is not None and kernel.execution_state == "busy" and not now:
            process = getattr(kernel.provisioner, "pid", None)
            for seconds, step in ((PATIENCE, True), (HASTE, False)):
                over = patience(process, seconds, step)
                if kernel.execution_state == "busy":
                    await kernel.interrupt_kernel()
                while kernel.execution_state == "busy" and not over():
                    await asyncio.sleep(0.05)
        await super()._async_shutdown_kernel(kernel_id, now=now, restart=restart)

    shutdown_kernel = _async_shutdown_kernel

    async def cull_kernel_if_idle(self, kernel_id):
        """Shut an idle kernel down (SHARE_CULL), but for one whose training goes on in a thread."""
        if not runs_of(getattr(self._kernels[kernel_id].provisioner, "pid", None)):
            await super().cull_kernel_if_idle(kernel_id)


def patience(process, seconds, step):
    """Return what tells whether the time is over that a kernel's cell may take, with its `step` or not."""
    try:
        from trainlab.run import grace

        deadlines = [grace.Deadline(each, seconds + step * grace.for_step(each)) for each in runs_of(process)]
    except Exception:  # src/ is the user's to edit: a server must stop all the same
        deadlines = []
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until and all(each.over() for each in deadlines)


def runs_of(process):
    """Return the folders of the runs that a kernel logs to."""
    try:
        from trainlab.run import stopping

        return stopping.runs_of(process)
    except Exception:  # as above
        return []


c = get_config()  # noqa: F821
project = Path(os.environ.get("TRAINLAB_ROOT") or Path(__file__).parents[1])

c.ServerApp.root_dir = str(project)
c.FileContentsManager.preferred_dir = str(project / "notebooks")
c.ServerApp.port = int(os.environ.get("JUPYTER_PORT") or 8888)
c.ServerApp.port_retries = 0  # a taken port is an error, not another port
c.ServerApp.custom_display_url = f"http://127.0.0.1:{c.ServerApp.port}/lab"
c.ServerApp.allow_root = True  # for engines that map root to the caller; make starts it as the caller

# Taken out of the environment, so that kernels and terminals do not inherit it. Without one Jupyter draws
# a random token and prints it; a given one is never printed.
if token := os.environ.pop("JUPYTER_TOKEN", ""):
    c.IdentityProvider.token = token
c.ServerApp.base_url = secret_path(token)
with suppress(OSError):  # where memory runs out, the server goes before a training: trainlab/run/record.py
    Path("/proc/self/oom_score_adj").write_text("600")
HTTPServer.configure(Door)  # nobody without the token is let in, and its cookies go nowhere else

# Inherited by kernels. Bars are plain text: without widgets, which no image has, tqdm would warn in red.
quiet = "ignore:IProgress not found"
os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), quiet]))

# A published port makes the server listen on every address of its container, which would switch this check
# off: a page of some evil.example that resolves to 127.0.0.1 is refused, whatever it sends.
c.ServerApp.allow_remote_access = False
c.ServerApp.local_hostnames = ["localhost"]

# No network calls of JupyterLab's own: news, updates, the extension manager
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
c.LabApp.app_settings_dir = str(Path(__file__).parent / "settings")  # no question about news
c.ServerApp.jpserver_extensions = {
    "doors": True,  # doors.py: the board, TensorBoard and the service of exported runs, and no other port
    "jupyter_server_proxy": False,  # which opens every port of this machine
    "jupyter_lsp": False,  # no language server is installed; starts sooner
}

# Not a login shell, which would reset PATH and lose `trainlab`
c.ServerApp.terminado_settings = {"shell_command": [os.environ.get("SHELL") or "/bin/bash"]}

c.ServerApp.kernel_manager_class = PatientKernels
c.KernelManager.shutdown_wait_time = 1.5  # seconds after that: kernels are gone before a stop's ten are over

shared.settle(c, token)  # what `make up SHARE=NAME` asks for; nothing without
