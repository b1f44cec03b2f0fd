"""Three small images, and COCO annotations for them."""

import pytest
from helpers import small_data

NAMES = ['a.png', 'b.png', 'c.png']


@pytest.fixture
def content():
    return small_data.coco(dict.fromkeys(NAMES, small_data.SIZE))


@pytest.fixture
def root(tmp_path):
    small_data.write_images(tmp_path, NAMES)
    return tmp_path
