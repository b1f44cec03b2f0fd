"""Turning trained modules into their inference form."""

from lightvit_mm.deploy.fold import fold_modules

__all__ = ['fold_modules']
