"""timm for the tests that compare with it."""

from types import ModuleType

import pytest

from lightvit_mm.benchmark import forms
from lightvit_mm.errors import UserError


def import_timm() -> ModuleType:
    """timm, or a skip with the reason."""
    try:
        return forms.import_timm()
    except UserError as error:
        pytest.skip(f'{error}; tools/test.sh puts it where the tests find it')
