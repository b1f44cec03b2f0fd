"""Training and evaluation from a config: the work of tools/train.py and tools/test.py."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint
from rich.console import Console

from lightvit_mm.classification.published import use_published_input
from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.config import data_paths, datasets_of, is_classifier
from lightvit_mm.engine.amp import use_amp
from lightvit_mm.engine.exported_model import ExportedModel, is_exported, use_exported
from lightvit_mm.engine.first_screen import FirstScreenHook, QuietRunner
from lightvit_mm.engine.launching import LAUNCHERS, join_process_group, leave_process_group
from lightvit_mm.engine.locking import check_work_dir, lock_work_dir
from lightvit_mm.engine.memory import ResidentMemoryHook, keep_freed_memory
from lightvit_mm.engine.model_checks import (
    check_channels,
    check_exported_classes,
    check_loops,
    meta_of,
    require_whole,
    warn_of_new_weights,
    warn_of_other_classes,
)
from lightvit_mm.engine.param_groups import param_group_table, rising_groups
from lightvit_mm.engine.progress import progress_line, use_tensorboard
from lightvit_mm.engine.resuming import bare_model
from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import ConfigError, UserError
from lightvit_mm.files import check_output_file, check_output_folder

# An empty file in every folder of pictures or label maps that `test` wrote.
SIGN = '.written_by_lightvit_mm'
# Names that mmengine gives to the checkpoints of a run.
CHECKPOINT = re.compile(r'(best_.+_)?(epoch|iter)_\d+\.pth')
# Errors of the registry and of Python for a `type` or an argument that does not exist.
MISNAMED = re.compile(r'is not in the \S+ registry|unexpected keyword|required positional argument')


def train(
    config: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    tensorboard: bool = False,
) -> Runner:
    """Train, with validation if the config has it.

    Args:
        config: config from `load_config`.
        resume: ``'auto'`` for the last whole checkpoint of the work dir, or a checkpoint file.
        amp: use mixed precision, see `use_amp`.
        auto_scale_lr: scale the learning rate by the actual over the base batch size.
        tensorboard: also log for TensorBoard, see `use_tensorboard`.

    Returns:
        The runner after training.

    Raises:
        UserError: the data are missing or unusable, the parts of the model do not fit together, an
            option does not fit the config, another training uses the work dir, or the disk or the
            data failed during training.
    """
    if tensorboard:
        use_tensorboard(config)
    parts = ('train', 'val') if config.get('val_cfg') else ('train',)
    reports = check_before_run(config, parts)
    _apply_options(config, amp, auto_scale_lr)
    check_work_dir(config)
    with _explained_failures(config.work_dir), _locked(config):
        if resume is not None:
            _resume_from(config, resume)
        elif not config.get('resume'):
            _keep_start(config)
        runner = _runner(config)
        if config.get('load_from'):
            classes = _classes(config, 'train')
            if config.get('resume'):
                warn_of_other_classes(config.load_from, classes)
            else:
                warn_of_new_weights(bare_model(runner), config.load_from, classes)
        counts = [report.counts.get('images', 0) for report in reports if report.part == 'train']
        runner.register_hook(FirstScreenHook(sum(counts)))
        if not torch.cuda.is_available():
            runner.register_hook(ResidentMemoryHook())
        with progress_line(runner):
            runner.train()
    print_log(
        f'trained: checkpoint {find_latest_checkpoint(runner.work_dir)}, log {_log_file(runner)}',
        logger='current',
    )
    leave_process_group(runner)
    return runner


def show_param_groups(config: Config, amp: bool = False, auto_scale_lr: bool = False) -> None:
    """Print the parameter groups that `train` would start with; needs no data.

    The learning rates are those before any schedule or warm-up. The arguments are those of `train`.
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
            model = bare_model(runner)
            console = Console()
            if not console.is_terminal:
                console.width = 120
            console.print(param_group_table(wrapper.optimizer, model))
            schedulers = config.get('param_scheduler') or []
            schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
            warning = rising_groups(wrapper.optimizer, schedulers)
            if warning:
                print(f'warning: {warning}')
    leave_process_group(runner)


def test(
    config: Config,
    checkpoint: str,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of a config.

    Args:
        config: config from `load_config`.
        checkpoint: weights, or a whole model exported by tools/export.py.
        out: output for predictions: a .pkl file for detectors and classifiers, a folder for the
            label maps of segmentors.
        show_dir: output folder for pictures.
        tta: average over flips (and scales, for segmentors). Classifiers have neither of these two.

    Returns:
        The metrics.

    Raises:
        UserError: the data are missing or unusable, the parts of the model do not fit together, an
            option does not fit the config, or ``out`` or ``show_dir`` is something else or cannot
            be written.
    """
    if is_classifier(config):
        for option, value in {'--show-dir': show_dir, '--tta': tta}.items():
            if value:
                raise UserError(
                    f'{option} is for detectors and segmentors; tools/predict.py draws the '
                    'classes of images, and tools/report.py shows the best and the worst'
                )
        if is_exported(checkpoint):
            raise UserError(f'{checkpoint}: exported files of classifiers are not evaluated')
        use_published_input(config, checkpoint)
    is_detector = config.default_scope == 'mmdet'
    pickled = is_detector or is_classifier(config)
    if out and pickled and Path(out).suffix not in ('.pkl', '.pickle'):
        kind = 'detector' if is_detector else 'classifier'
        raise UserError(f'--out {out}: predictions of a {kind} go into a .pkl file')
    inputs = [*data_paths(config), checkpoint]
    if out and pickled:
        mark = b'pred_instances' if is_detector else b'pred_scores'
        check_output_file(out, '--out', mark, inputs)
    folders = {'--out': None if pickled else out, '--show-dir': show_dir}
    for option, folder in folders.items():
        if folder:
            check_output_folder(folder, option, [SIGN], inputs)
    if tta and _predicts_masks(config):
        raise UserError('--tta: mmdet averages boxes only, and this detector predicts masks')
    if not config.get('test_dataloader'):
        raise ConfigError(
            f'{config.filename} has no test set: write test_dataloader = val_dataloader, '
            'test_evaluator = val_evaluator and test_cfg = dict()'
        )
    check_before_run(config, ('test',))
    if is_exported(checkpoint):
        if tta:
            raise UserError('--tta needs a checkpoint: an exported file does not support its sizes')
        use_exported(config, checkpoint)
        config.load_from = None
    else:
        config.load_from = checkpoint
    config.resume = False  # the saved config of a resumed run has True
    if show_dir:
        config.default_hooks.visualization.draw = True
        if is_detector:
            config.default_hooks.visualization.test_out_dir = str(Path(show_dir).absolute())
        else:
            config.visualizer.save_dir = show_dir
            config.visualizer.vis_backends = [{'type': 'WholePicturesBackend'}]
    if tta:
        if 'tta_pipeline' not in config or 'tta_model' not in config:
            raise UserError('--tta needs tta_model and tta_pipeline in the config')
        config.test_dataloader = copy.deepcopy(config.test_dataloader)
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.model = {**config.tta_model, 'module': config.model}
    with ExitStack() as stack:
        if out and not pickled:
            labels = stack.enter_context(_finished_labels(out))
            config.test_evaluator.update(output_dir=labels, keep_results=True)
        runner = _runner(config, EvaluatingRunner)
        model, classes = bare_model(runner), _classes(config, 'test')
        if isinstance(model, ExportedModel):
            check_exported_classes(checkpoint, model.dataset_meta['classes'], classes)
        else:
            require_whole(model, checkpoint)
            warn_of_other_classes(checkpoint, classes)
        if out and not pickled:
            _check_names(runner, out)
        if out and is_detector:
            from mmdet.evaluation import DumpDetResults

            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        elif out and pickled:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
        for folder in filter(None, folders.values()):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, SIGN).touch()
        metrics = runner.test()
    kept = [place for place in (out, show_dir) if place]
    print_log(
        f'evaluated {checkpoint}: log {_log_file(runner)}'
        + (f', predictions {", ".join(kept)}' if kept else ''),
        logger='current',
    )
    leave_process_group(runner)
    return metrics


@contextmanager
def _finished_labels(folder: str) -> Iterator[str]:
    """Yield a folder for label maps, which mmseg writes in place; they move to ``folder`` at last.

    Each process has its own, with the label maps of its images.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.part_', dir=folder) as part:
        try:
            yield part
        except OSError as error:
            # Pillow names no file when a disk is full.
            error.filename = error.filename or folder
            raise
        for file in Path(part).iterdir():
            os.replace(file, Path(folder, file.name))


def _check_names(runner: Runner, out: str) -> None:
    """Refuse images of the same name, for which mmseg would write one label map."""
    dataset, seen = runner.test_dataloader.dataset, dict[str, Path]()
    for number in range(len(dataset)):
        path = Path(dataset.get_data_info(number)['img_path'])
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f'--out {out}: {other} and {path} have one name, and would have one label map. '
                'tools/predict.py keeps their folders apart'
            )


def _resume_from(config: Config, resume: str) -> None:
    if not resume:
        raise UserError(
            '--resume: the name of the checkpoint is empty (an unset variable?). Name a file, or '
            'give --resume alone for the last checkpoint of the work dir'
        )
    if resume == 'auto':
        found = latest_checkpoint(config.work_dir)
        if found is None:
            raise UserError(
                f'--resume: there is no whole checkpoint in {config.work_dir}; start without '
                '--resume, or name a checkpoint file'
            )
        resume = found
    config.resume, config.load_from = True, resume
    # mmengine restores the seed of the checkpoint only after the data loader has started to shuffle
    # with another one.
    if config.get('randomness', {}).get('seed') is None:
        content = CheckpointLoader.load_checkpoint(resume, 'cpu', logger='silent')
        seed = meta_of(content, resume).get('seed')
        config.randomness = {**config.get('randomness', {}), 'seed': seed}


def _keep_start(config: Config) -> None:
    """Refuse to start from a checkpoint that this training would replace or remove."""
    start = Path(config.get('load_from') or '')
    inside = start.resolve().parent == Path(config.work_dir).resolve()
    if inside and CHECKPOINT.fullmatch(start.name):
        raise UserError(
            f'load_from={start} is in the work dir, where this training would replace it: give '
            'another --work-dir, or continue that training with --resume'
        )


def _classes(config: Config, part: str) -> Sequence[str]:
    """Class names of a config's data, from the config alone; empty if unknown."""
    dataset = next(datasets_of(config[f'{part}_dataloader']), {})
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(config.get('default_scope')) as registry:
            kind = registry.get(kind)
    metainfo = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    classes = metainfo.get('classes') or ()
    return () if isinstance(classes, str) else classes  # a string would name a file


@contextmanager
def _explained_failures(work_dir: str) -> Iterator[None]:
    """Turn a failure of the disk or the data into an error that names the checkpoint to resume."""
    try:
        yield
    except (ConnectionError, UserError):
        raise
    except OSError as error:
        # The message of a data worker's error begins with the worker's traceback.
        reason = str(error).strip().rsplit('\n', 1)[-1]
        checkpoint = latest_checkpoint(work_dir)
        raise UserError(
            f'training stopped: {reason}\n'
            + (
                f'last whole checkpoint: {checkpoint}. Fix the cause, then continue with --resume'
                if checkpoint
                else f'no checkpoint was saved in {work_dir}'
            )
        ) from error


def _locked(config: Config) -> AbstractContextManager[None]:
    """`lock_work_dir` in the first process of a training; the others need none."""
    variable = LAUNCHERS[config.launcher]
    if variable and os.environ.get(variable, '0') != '0':
        return nullcontext()
    return lock_work_dir(config.work_dir)


def _apply_options(config: Config, amp: bool, auto_scale_lr: bool) -> None:
    if amp:
        use_amp(config)
    if auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config'
            )
        config.auto_scale_lr.enable = True


class EvaluatingRunner(QuietRunner):
    """A runner that leaves the config alone that it was made from.

    A training keeps its config in the work dir. An evaluation with that config changes it in
    memory, e.g. to an exported model or to test-time augmentation, and would replace the file.
    """

    def dump_config(self) -> None:
        """Save the config in the work dir, unless it was read from there."""
        file = Path(self.cfg.filename)
        if file.resolve().parent != Path(self.work_dir).resolve():
            super().dump_config()


def _runner(config: Config, kind: type[QuietRunner] = QuietRunner) -> Runner:
    check_loops(config)
    join_process_group(config.launcher)
    if not torch.cuda.is_available():
        keep_freed_memory()
    try:
        runner = kind.from_cfg(config)
    except (KeyError, TypeError) as error:
        if isinstance(error, UserError) or not MISNAMED.search(str(error)):
            raise
        raise ConfigError(f'{config.filename} cannot be built: {error.args[0]}') from error
    check_channels(bare_model(runner), config.model.get('module', config.model))
    return runner


def _log_file(runner: Runner) -> str:
    return os.path.join(runner.log_dir, f'{runner.timestamp}.log')


def _predicts_masks(config: Config) -> bool:
    second, dense = config.model.get('roi_head') or {}, config.model.get('bbox_head') or {}
    return 'mask_head' in second or 'loss_mask' in dense
