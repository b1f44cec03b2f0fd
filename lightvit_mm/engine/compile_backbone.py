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

    In a config: ``custom_hooks = [dict(type='CompileBackbone')]``. The first step of each mode
    waits for the compiler, and so does the second size of images, from which on sizes are left
    open. Checkpoints stay as they are.
    """

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
        model.backbone.compile()
        runner.logger.info('the backbone is compiled at its first call, which takes a while')
