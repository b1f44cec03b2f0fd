"""``torch.compile`` for the backbone of a detector or segmentor, from a config."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from lightvit_mm.errors import UserError
from lightvit_mm.registry import HOOKS


@HOOKS.register_module()
class CompileBackbone(Hook):
    """Compile the backbone in training, validation and test, and leave the rest as it is.

    In a config: ``custom_hooks = [dict(type='CompileBackbone')]``. Checkpoints stay as they are.

    Args:
        dynamic: compile once for all sizes of images, as detectors have them; None compiles for the
            first size, and again when others come. Each time the step waits for the compiler.
    """

    def __init__(self, dynamic: bool | None = None) -> None:
        self.dynamic = dynamic

    def before_run(self, runner: Runner) -> None:
        """Have the backbone compiled at its first call.

        Raises:
            UserError: the model has no backbone.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'backbone'):
            raise UserError(
                f'CompileBackbone: {type(model).__name__} has no backbone; take the hook out of '
                'custom_hooks'
            )
        model.backbone.compile(dynamic=self.dynamic)
        runner.logger.info('the backbone is compiled at its first call, which takes a while')
