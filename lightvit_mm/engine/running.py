"""Training and evaluation from a config: what tools/train.py and tools/test.py do."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_distributed
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint
from rich.console import Console

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.config import datasets_of
from lightvit_mm.engine.amp import use_amp
from lightvit_mm.engine.broken_samples import NamingRunner
from lightvit_mm.engine.exported_model import is_onnx, use_onnx
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.engine.model_checks import (
    check_channels,
    require_whole,
    warn_of_new_weights,
    warn_of_other_classes,
)
from lightvit_mm.engine.param_groups import param_group_table, rising_groups
from lightvit_mm.engine.progress import ResidentMemoryHook, progress_line, use_tensorboard
from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import ConfigError, UserError

# Each with the variable that it sets in every process.
LAUNCHERS = {
    'none': None,
    'pytorch': 'RANK',
    'slurm': 'SLURM_PROCID',
    'mpi': 'OMPI_COMM_WORLD_RANK',
}
# What the registry and Python say of a `type` or an argument that does not exist.
MISNAMED = re.compile(r'is not in the \S+ registry|unexpected keyword|required positional argument')


def train(
    config: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    tensorboard: bool = False,
) -> Runner:
    """Train (and validate, as the config says).

    Args:
        config: as `load_config` gives it.
        resume: ``'auto'`` for the last whole checkpoint of the work dir, or a checkpoint file.
        amp: mixed precision, see `use_amp`.
        auto_scale_lr: scale the learning rate by the real over the base batch size.
        tensorboard: write for TensorBoard too, see `use_tensorboard`.

    Returns:
        The runner after training.

    Raises:
        UserError: the data are missing or cannot be used, the parts of the model do not fit, an
            option does not go with the config, or the disk or the data failed on the way.
    """
    if tensorboard:
        use_tensorboard(config)
    check_before_run(config, ('train', 'val') if config.get('val_cfg') else ('train',))
    _apply_options(config, amp, auto_scale_lr)
    if resume:
        _go_on_from(config, resume)
    with _explained_failures(config.work_dir):
        runner = _runner(config)
        if resume:
            require_whole(_bare_model(runner), config.load_from)
            warn_of_other_classes(config.load_from, _classes(config, 'train'))
        elif config.get('load_from'):
            classes = _classes(config, 'train')
            warn_of_new_weights(_bare_model(runner), config.load_from, classes)
        if not torch.cuda.is_available():
            runner.register_hook(ResidentMemoryHook())
        with progress_line(runner):
            runner.train()
    print_log(
        f'trained: checkpoint {find_latest_checkpoint(runner.work_dir)}, log {_log_file(runner)}',
        logger='current',
    )
    _leave_process_group(runner)
    return runner


def show_param_groups(config: Config, amp: bool = False, auto_scale_lr: bool = False) -> None:
    """Print the parameter groups that `train` would begin with; needs no data.

    Learning rates are those before any schedule or warmup.

    Args:
        config, amp, auto_scale_lr: as in `train`.
    """
    _apply_options(config, amp, auto_scale_lr)
    config = copy.deepcopy(config)
    config.log_level = 'ERROR'
    with tempfile.TemporaryDirectory() as work_dir:
        config.work_dir = work_dir
        runner = _runner(config)
        wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(wrapper, runner.auto_scale_lr)
        if runner.rank == 0:
            model = _bare_model(runner)
            console = Console()
            if not console.is_terminal:
                console.width = 120
            console.print(param_group_table(wrapper.optimizer, model))
            schedulers = config.get('param_scheduler') or []
            schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
            warning = rising_groups(wrapper.optimizer, schedulers)
            if warning:
                print(f'warning: {warning}')
    _leave_process_group(runner)


def test(
    config: Config,
    checkpoint: str,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of a config.

    Args:
        config: as `load_config` gives it.
        checkpoint: the weights, or a file that tools/export_onnx.py made of the whole model.
        out: where predictions are kept: a .pkl file for detectors, a folder of label maps for
            segmentors.
        show_dir: where pictures are drawn.
        tta: average over flips (and scales, for segmentors).

    Returns:
        The metrics.

    Raises:
        UserError: the data are missing or cannot be used, the parts of the model do not fit, or
            an option does not go with the config.
    """
    check_before_run(config, ('test',))
    is_detector = config.default_scope == 'mmdet'
    if is_onnx(checkpoint):
        if tta:
            raise UserError('--tta needs a checkpoint: it runs at sizes that an ONNX file lacks')
        use_onnx(config, checkpoint)
    else:
        # The config that a resumed run has saved says resume=True.
        config.load_from, config.resume = checkpoint, False
    if show_dir:
        config.default_hooks.visualization.draw = True
        if is_detector:
            config.default_hooks.visualization.test_out_dir = str(Path(show_dir).absolute())
        else:
            config.visualizer.save_dir = show_dir
    if out and is_detector and Path(out).suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {out}: predictions of a detector go into a .pkl file')
    if out and not is_detector:
        config.test_evaluator.update(output_dir=out, keep_results=True)
    if tta:
        if 'tta_pipeline' not in config or 'tta_model' not in config:
            raise UserError('--tta needs tta_model and tta_pipeline in the config')
        config.test_dataloader = copy.deepcopy(config.test_dataloader)
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.model = {**config.tta_model, 'module': config.model}
    runner = _runner(config)
    if not is_onnx(checkpoint):
        require_whole(_bare_model(runner), checkpoint)
        warn_of_other_classes(checkpoint, _classes(config, 'test'))
    if out and is_detector:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    metrics = runner.test()
    kept = [place for place in (out, show_dir) if place]
    print_log(
        f'evaluated {checkpoint}: log {_log_file(runner)}'
        + (f', predictions {", ".join(kept)}' if kept else ''),
        logger='current',
    )
    _leave_process_group(runner)
    return metrics


def _go_on_from(config: Config, resume: str) -> None:
    if resume == 'auto':
        found = latest_checkpoint(config.work_dir)
        if found is None:
            raise UserError(
                f'--resume: there is no whole checkpoint in {config.work_dir}; start without '
                '--resume, or name a checkpoint file'
            )
        resume = found
    config.resume, config.load_from = True, resume
    # mmengine takes over the seed of the checkpoint only after the data loader has begun to shuffle
    # by another one.
    if config.get('randomness', {}).get('seed') is None:
        seed = CheckpointLoader.load_checkpoint(resume, 'cpu').get('meta', {}).get('seed')
        config.randomness = {**config.get('randomness', {}), 'seed': seed}


def _classes(config: Config, part: str) -> Sequence[str]:
    """Names of the classes of a config's data, without reading them; empty if unknown."""
    dataset = next(datasets_of(config[f'{part}_dataloader']), {})
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(config.get('default_scope')) as registry:
            kind = registry.get(kind)
    metainfo = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    classes = metainfo.get('classes') or ()
    return () if isinstance(classes, str) else classes  # mmengine lets it name a file


@contextmanager
def _explained_failures(work_dir: str) -> Iterator[None]:
    """What a disk or the data did to a training, told with the checkpoint to go on from."""
    try:
        yield
    except (ConnectionError, UserError):
        raise
    except OSError as error:
        # An error of a data worker carries the worker's traceback before it.
        reason = str(error).strip().rsplit('\n', 1)[-1]
        checkpoint = latest_checkpoint(work_dir)
        raise UserError(
            f'training stopped: {reason}\n'
            + (
                f'last whole checkpoint: {checkpoint}. When that is put right, go on with --resume'
                if checkpoint
                else f'no checkpoint was saved in {work_dir}'
            )
        ) from error


def _apply_options(config: Config, amp: bool, auto_scale_lr: bool) -> None:
    if amp:
        use_amp(config)
    if auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config'
            )
        config.auto_scale_lr.enable = True


def _runner(config: Config) -> Runner:
    _check_launcher(config.launcher)
    if not torch.cuda.is_available():
        keep_freed_memory()
    if config.launcher == 'pytorch' and not torch.cuda.is_available() and not is_distributed():
        # mmengine's own start of the process group sets a CUDA device first.
        torch.distributed.init_process_group(backend='gloo')
    try:
        runner = NamingRunner.from_cfg(config)
    except (KeyError, TypeError) as error:
        if isinstance(error, UserError) or not MISNAMED.search(str(error)):
            raise
        raise ConfigError(f'{config.filename} cannot be built: {error.args[0]}') from error
    check_channels(_bare_model(runner), config.model.get('module', config.model))
    return runner


def _bare_model(runner: Runner) -> torch.nn.Module:
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _check_launcher(launcher: str) -> None:
    variable = LAUNCHERS[launcher]
    if variable and variable not in os.environ:
        raise UserError(
            f'--launcher {launcher}, but {variable} is not set: no such launcher started this '
            'process. tools/dist_train.sh (pytorch) and tools/slurm_train.sh (slurm) do'
        )
    if launcher in ('slurm', 'mpi') and not torch.cuda.is_available():
        raise UserError(
            f'--launcher {launcher} needs CUDA, which torch finds none of here; several '
            'processes on CPUs: tools/dist_train.sh'
        )


def _leave_process_group(runner: Runner) -> None:
    if not is_distributed():
        return
    # A process that ends while another still talks to it makes gloo abort that one.
    barrier()
    # gloo's threads end with the last reference to the group, and the wrapper of the model has one.
    # A thread that frees a tensor while the interpreter ends aborts the process: "terminate called
    # without an active exception" (pytorch/pytorch#190489).
    if is_model_wrapper(runner.model):
        runner.model = runner.model.module
    torch.distributed.destroy_process_group()


def _log_file(runner: Runner) -> str:
    return os.path.join(runner.log_dir, f'{runner.timestamp}.log')
