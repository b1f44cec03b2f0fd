"""A hook that applies ``torch.compile`` to the backbone of a detector or segmentor."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from lightvit_mm.errors import UserError
from lightvit_mm.registry import HOOKS


@HOOKS.register_module()
class CompileBackbone(Hook):
    """Compiles the backbone for training, validation and test, and nothing else.

    In a config: ``custom_hooks = [dict(type='CompileBackbone')]``. Checkpoints do not change.

    Args:
        dynamic: True compiles once for all image sizes, which suits detectors. None compiles for
            the first size and recompiles for others; the training step waits each time.
    """

    def __init__(self, dynamic: bool | None = None) -> None:
        self.dynamic = dynamic

    def before_run(self, runner: Runner) -> None:
        """Mark the backbone for compilation at its first call.

        Raises:
            UserError: the model has no backbone.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'backbone'):
            raise UserError(
                f'CompileBackbone: {type(model).__name__} has no backbone; remove the hook from '
                'custom_hooks'
            )
        model.backbone.compile(dynamic=self.dynamic)
        runner.logger.info('the backbone is compiled at its first call, which takes a while')
