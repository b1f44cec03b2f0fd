"""The processes of a run: whether their launcher started them, and their process group."""

from __future__ import annotations

import os

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from lightvit_mm.errors import UserError

# Each with an environment variable that it sets in every process.
LAUNCHERS = {
    'none': None,
    'pytorch': 'RANK',
    'slurm': 'SLURM_PROCID',
    'mpi': 'OMPI_COMM_WORLD_RANK',
}


def join_process_group(launcher: str) -> None:
    """Check that the launcher can run here, and on CPUs join the process group that it formed.

    With CUDA, mmengine's Runner joins it.

    Args:
        launcher: one of `LAUNCHERS`.

    Raises:
        UserError: the launcher did not start this process, or it needs CUDA and there is none.
    """
    variable = LAUNCHERS[launcher]
    if variable and variable not in os.environ:
        raise UserError(
            f'--launcher {launcher}, but {variable} is not set: that launcher did not start this '
            'process. Use tools/dist_train.sh (pytorch) or tools/slurm_train.sh (slurm)'
        )
    if torch.cuda.is_available():
        return
    if launcher in ('slurm', 'mpi'):
        raise UserError(
            f'--launcher {launcher} needs CUDA, and torch finds no GPU here. To run several '
            'processes on CPUs, use tools/dist_train.sh'
        )
    if launcher == 'pytorch' and not is_distributed():
        # The Runner would set a CUDA device first.
        torch.distributed.init_process_group(backend='gloo')


def leave_process_group(runner: Runner) -> None:
    """Wait for the other processes and leave the group, if there is one; the run is over."""
    if not is_distributed():
        return
    # If a process ends while another still talks to it, gloo aborts the other one.
    barrier()
    # gloo's threads end with the last reference to the group, and the model's wrapper holds one. If
    # a thread frees a tensor while the interpreter shuts down, the process aborts: "terminate
    # called without an active exception" (pytorch/pytorch#190489).
    if is_model_wrapper(runner.model):
        runner.model = runner.model.module
    torch.distributed.destroy_process_group()
