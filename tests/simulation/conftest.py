from functools import cache

import pytest

from wam.simulation.environment import make_environment


@cache
def _made(name, image_size, cameras):
    return make_environment(name, image_size=image_size, cameras=cameras)


@pytest.fixture(scope="session")
def environment():
    """environment(name, ...): made once, reset by whoever uses it."""
    return lambda name, image_size=64, cameras=None: _made(name, image_size, cameras)
