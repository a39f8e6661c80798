import numpy as np
import pytest

from wam.contracts import WamError
from wam.simulation.environment import make_environment
from wam.simulation.play import Play
from wam.simulation.recovery import Disturbance, RecoveryNoise


def played(env, seed, steps=120):
    env.reset(seed)
    play, actions, states, experts = Play(env, np.random.default_rng(seed)), [], [], []
    for _ in range(steps):
        actions.append(play.action())
        experts.append(play._expert_turn)
        env.step(actions[-1], render=False)
        states.append(env.robot_state())
    return np.array(actions), np.array(states), np.array(experts)


def test_play_stays_within_limits_and_in_view(environment):
    actions, states, _ = played(environment("metaworld/faucet-open-v3"), 0)
    assert np.abs(actions).max() <= 1
    assert (np.abs(states[:, 0]) < 0.45).all()
    assert ((states[:, 1] > 0.35) & (states[:, 1] < 0.95)).all()


def test_play_is_smooth_and_moves_far(environment):
    env = environment("metaworld/faucet-open-v3")
    runs = [played(env, seed) for seed in range(4)]
    random = np.concatenate([actions[~experts][:, :3] for actions, _, experts in runs])
    neighbours = np.mean(random[1:] * random[:-1]) / np.mean(random**2)
    assert neighbours > 0.6
    assert np.ptp(np.concatenate([states[:, :3] for _, states, _ in runs]), axis=0).min() > 0.15


def test_about_a_quarter_of_play_is_the_expert_s(environment):
    env = environment("metaworld/drawer-open-v3")
    share = np.mean([played(env, seed, steps=240)[2].mean() for seed in range(8)])
    assert 0.1 < share < 0.4


def test_the_same_start_is_played_differently_by_another_chance(environment):
    env = environment("metaworld/faucet-open-v3")
    env.reset(0)
    first = Play(env, np.random.default_rng(0)).action()
    assert np.abs(first - Play(env, np.random.default_rng(1)).action()).max() > 0.05


def test_play_needs_no_expert_and_aims_near_where_targets_are_absolute():
    env = make_environment("pusht/pusht", image_size=16)
    actions, states, experts = played(env, 0)
    assert not experts.any()
    assert (actions >= 0).all()
    assert (actions <= 512).all()
    assert len(np.unique(actions, axis=0)) > 8
    assert np.ptp(states, axis=0).min() > 100


def test_noise_spares_the_gripper_and_has_the_asked_size(environment):
    space = environment("metaworld/faucet-open-v3").action_space
    noise = RecoveryNoise(level=(0.2, 0.2), burst_rate=0)
    disturbance = Disturbance(noise, space, np.random.default_rng(0))
    shaken = np.array([disturbance.applied(np.array([0, 0, 0, 0.5])) for _ in range(400)])
    assert (shaken[:, 3] == 0.5).all()
    assert shaken[:, :3].std() == pytest.approx(0.2, rel=0.1)


def test_bursts_push_one_way_for_their_length(environment):
    space = environment("metaworld/faucet-open-v3").action_space
    noise = RecoveryNoise(level=(0, 0), burst_rate=0.1, burst_steps=(4, 4), burst_size=(0.8, 0.8))
    disturbance = Disturbance(noise, space, np.random.default_rng(0))
    pushes = np.array([disturbance.applied(np.zeros(4)) for _ in range(400)])
    sizes = np.linalg.norm(pushes, axis=1)
    active = sizes > 0
    assert sizes[active] == pytest.approx(0.8)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], active, [0]]))))[::2][:-1]  # the last may be cut short
    assert (runs % 4 == 0).all()
    assert 0.1 < active.mean() < 0.5


@pytest.mark.parametrize("wrong", [{"level": (0.3, 0.1)}, {"burst_rate": 2.0}, {"burst_size": (-1, 0)}])
def test_impossible_noise_is_refused(wrong):
    with pytest.raises(WamError):
        RecoveryNoise(**wrong)
