import numpy as np
import pytest

from wam.contracts import WamError
from wam.simulation.environment import make_environment


@pytest.fixture
def pusht():
    return make_environment("pusht/pusht", image_size=48)


def push(env, steps, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        env.step(np.asarray(env._env.block.position) + rng.uniform(-60, 60, 2), render=False)
    return env.get_state()


def test_it_goes_through_the_same_interface(pusht):
    observation = pusht.reset(1)
    assert observation.images["top"].shape == (48, 48, 3)
    assert observation.state.shape == (pusht.state_dim,) == (pusht.action_space.dim,)
    assert pusht.action_space.kind == "absolute"
    assert pusht.action_space.rate_hz == 10
    result = pusht.step(np.array([256.0, 256.0]))
    assert np.linalg.norm(result.observation.state - 256) < np.linalg.norm(observation.state - 256)


def test_the_same_seed_gives_the_same_episode(pusht):
    pusht.reset(3)
    one = push(pusht, 20, 0)
    pusht.reset(3)
    np.testing.assert_array_equal(push(pusht, 20, 0), one)


def test_a_state_restores_body_for_body_and_replays_closely(pusht):
    pusht.reset(3)
    state = push(pusht, 20, 0)
    after = push(pusht, 5, 1)
    for _ in range(2):
        pusht.set_state(state)
        np.testing.assert_array_equal(pusht.get_state(), state)
        twin = push(pusht, 5, 1)
        np.testing.assert_allclose(twin[[1, 2, 7, 8]], after[[1, 2, 7, 8]], atol=1)


def test_pushing_moves_the_block_in_the_picture(pusht):
    before = pusht.reset(3).images["top"]
    push(pusht, 40, 0)
    changed = (pusht.observe().images["top"] != before).any(axis=-1)
    assert changed.sum() > 50


def test_it_says_that_it_has_no_expert(pusht):
    pusht.reset(0)
    with pytest.raises(WamError, match="collect play there"):
        pusht.expert_action()


def test_other_cameras_and_renderers_are_refused():
    with pytest.raises(WamError, match="top"):
        make_environment("pusht/pusht", cameras=["side"])
    with pytest.raises(WamError, match="own renderer"):
        make_environment("pusht/pusht", renderer="egl")
