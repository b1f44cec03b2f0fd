"""Heads that need mmdet or mmseg; a config that uses one names its module in ``custom_imports``."""
