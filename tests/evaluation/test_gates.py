"""The gates pass a model that knows its world and fail one that only looks as if."""

import dataclasses
import math

import numpy as np
import pytest
from evaluation_fakes import SPACE, BlindModel, PerfectModel, windows
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.evaluation import gates
from wam.evaluation.runners import GateSettings, ask, evaluate_gates, gate_figures, only, shuffle_actions

PLAY, EXPERT = windows(24, play=True), windows(24, play=False, seed=1)


def results_of(model, **settings):
    found = evaluate_gates(model, play=PLAY, expert=EXPERT, space=SPACE, settings=GateSettings(**settings))
    return {(r.name, r.steps): r for r in found}


def test_a_perfect_model_passes_every_gate_at_one_and_several_steps():
    found = results_of(PerfectModel())
    assert {steps for _, steps in found} == {1, 3}
    assert {name for name, _ in found} == set(gates.TARGETS) - {"wrong_text_success"}
    assert all(r.passed and r.n == 24 for r in found.values()), found


def test_a_model_blind_to_actions_and_futures_fails_where_it_should():
    found = results_of(BlindModel(), steps=(1,))
    assert found["action_sensitivity", 1].value == pytest.approx(1)
    assert not found["action_sensitivity", 1].passed
    assert not found["forward_gain_db", 1].passed
    assert not found["inverse_r2_gain", 1].passed
    assert found["imagine_gain_db", 1].passed  # what follows from the frame it does foresee


def test_the_model_never_gets_what_it_is_asked_for():
    class Spy:
        def sample(self, batch, given, want, steps, seed):
            self.fields = {*batch.tensors(), *(("instruction",) if batch.instruction else ())}
            return PerfectModel().sample(batch, given, want, steps, seed)

    spy = Spy()
    ask(spy, PLAY, given=("observation", "text"), want="future", steps=1)
    assert spy.fields == {"images", "instruction"}
    with pytest.raises(WamError, match="windows with action"):
        only(PLAY.without("action"), ("observation", "action"))


def test_small_batches_give_the_same_answer_as_large_ones():
    parts, whole = (
        ask(PerfectModel(), PLAY, given=("observation", "action"), want="future", steps=1, batch_size=size)
        for size in (5, 64)
    )
    np.testing.assert_array_equal(parts, whole)


@given(st.integers(2, 200), st.integers(0, 5))
def test_a_derangement_leaves_nothing_in_its_place(n, seed):
    order = gates.derangement(n, seed=seed)
    assert sorted(order) == list(range(n))
    assert (order != np.arange(n)).all()
    assert (order == gates.derangement(n, seed=seed)).all()


def test_shuffling_moves_actions_and_their_masks_together_and_nothing_else():
    mask = PLAY.action_mask.clone()
    mask[3, 2:] = False
    shuffled = shuffle_actions(PLAY.replace(action_mask=mask))
    source = gates.derangement(24)
    place = int(np.flatnonzero(source == 3)[0])
    assert (shuffled.action[place] == PLAY.action[3]).all()
    assert shuffled.action_mask[place].tolist() == [True, True, False, False]
    assert (shuffled.images == PLAY.images).all()
    with pytest.raises(WamError, match="at least two windows"):
        shuffle_actions(PLAY[:1])


def still(shape=(2, 1, 1, 4, 4, 3)):
    return np.full(shape, 0.5, np.float32)


def test_nothing_that_moves_is_not_measured_rather_than_passed():
    real, present = still(), still()[:, :, 0]
    assert math.isnan(gates.action_sensitivity(real, real, real, present).value)
    assert math.isnan(gates.gain_over_copying("forward_gain_db", real, real, present).value)
    still_actions = np.zeros((3, 4, 4))
    assert math.isnan(gates.inverse_r2_gain(still_actions, still_actions, still_actions, dims=(0, 1)).value)
    assert not gates.judge("forward_gain_db", math.nan, n=3).passed


def test_action_sensitivity_is_the_ratio_of_errors_on_changed_pixels_only():
    present, real = still()[:, :, 0], still()
    real[..., 0, 0, :] = 1.0
    true, shuffled = real.copy(), real.copy()
    true[..., 0, 0, :] -= 0.1
    shuffled[..., 0, 0, :] -= 0.2
    shuffled[..., 3, 3, :] = 0  # an unchanged pixel does not count
    result = gates.action_sensitivity(true, shuffled, real, present)
    assert result.value == pytest.approx(4, rel=1e-4)
    assert result.detail["psnr_changed_true"] == pytest.approx(20, rel=1e-4)


def test_frames_past_the_end_of_an_episode_do_not_count():
    real, present = still((2, 1, 2, 4, 4, 3)), still()[:, :, 0]
    real[:, :, 0, 0, 0] = 1.0
    predicted = real.copy()
    predicted[:, :, 1] = 0  # wrong, but past the end
    valid = np.array([[[True, False]]] * 2)
    assert gates.gain_over_copying("imagine_gain_db", predicted, real, present, valid=valid).value == 100
    assert gates.gain_over_copying("imagine_gain_db", predicted, real, present).value < 0


def test_r2_and_the_clamp_of_a_bad_policy():
    real = np.random.default_rng(0).normal(size=(50, 4, 3))
    bad = np.zeros_like(real) + 7
    result = gates.inverse_r2_gain(real, bad, real, dims=(0, 1, 2))
    assert result.detail["r2_policy"] < 0
    assert result.value == pytest.approx(1)
    mean = np.broadcast_to(real.mean((0, 1)), real.shape)
    assert gates.inverse_r2_gain(mean, bad, real, dims=(0,)).value == pytest.approx(0, abs=0.1)


def test_masked_actions_and_absolute_targets_do_not_pass_for_motion():
    action = np.array([[[1.0], [3.0], [100.0]]])
    mask = np.array([[True, True, False]])
    assert gates.mean_motion(action, (0,), mask=mask) == pytest.approx(2)
    assert gates.mean_motion(action, (0,), mask=mask, absolute=True) == pytest.approx(1)


def test_motion_dimensions_are_found_by_name_or_asked_for():
    assert gates.motion_dims(SPACE) == (0, 1, 2)
    assert gates.motion_dims(SPACE, ("gripper",)) == (3,)
    joints = dataclasses.replace(SPACE, names=("a", "b", "c", "d"), gripper=None)
    with pytest.raises(WamError, match="motion dimensions"):
        gates.motion_dims(joints)


def test_wrong_text_wants_a_small_rate():
    assert gates.wrong_text_success([False] * 40).passed
    assert not gates.wrong_text_success([True] * 10 + [False] * 10).passed
    assert gates.wrong_text_success([True, False]).direction == "at_most"


def test_figures_keep_the_worst_over_sampling_steps_and_never_hide_nan():
    found = [
        gates.judge("forward_gain_db", 5, n=9, steps=1),
        gates.judge("forward_gain_db", 4, n=9, steps=3),
        gates.judge("wrong_text_success", 0.1, n=9, steps=1),
        gates.judge("wrong_text_success", 0.2, n=9, steps=3),
        gates.judge("imagine_gain_db", 2, n=9, steps=1),
        gates.judge("imagine_gain_db", math.nan, n=9, steps=3),
    ]
    figures = gate_figures(found)
    assert figures["forward_gain_db"] == 4
    assert figures["forward_gain_db_1_steps"] == 5
    assert figures["wrong_text_success"] == 0.2
    assert math.isnan(figures["imagine_gain_db"])


def test_a_result_survives_being_written():
    result = gates.judge("imagine_gain_db", 2.5, n=9, steps=3, psnr=20.0)
    assert gates.GateResult.from_dict(result.to_dict()) == result
