"""Probes and retrieval find what is in latents, and nothing in noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam.evaluation.figures import Figure, format_figures
from wam.evaluation.latent_action import probes


def data(n: int = 400, *, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, 4) and a motion (n, 3) that is a linear map of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    mix = np.random.default_rng(99).normal(size=(4, 3))
    return x, x @ mix + noise * rng.normal(size=(n, 3)) + 5


class TestLinear:
    def test_a_linear_map_is_read_perfectly(self) -> None:
        (x, y), (x_test, y_test) = data(), data(seed=1)
        assert probes.r2(probes.linear_probe(x, y, x_test, ridge=1e-6), y_test).min() > 0.999

    def test_shuffled_labels_give_nothing(self) -> None:
        (x, y), (x_test, y_test) = data(2000), data(2000, seed=1)
        assert probes.r2(probes.linear_probe(x, y, x_test, seed=0), y_test).max() < 0.05

    @given(st.integers(2, 30), st.integers(2, 30))
    @settings(max_examples=20, deadline=None)
    def test_more_inputs_than_rows_give_the_same_answer_either_way(self, rows: int, columns: int) -> None:
        rng = np.random.default_rng(rows * 31 + columns)
        x, y = rng.normal(size=(rows, columns)), rng.normal(size=(rows, 2))
        z = (x - x.mean(0)) / (x.std(0) + 1e-6)
        weights = np.linalg.inv(z.T @ z + 0.1 * rows * np.eye(columns)) @ z.T @ (y - y.mean(0))
        assert np.allclose(probes.linear_probe(x, y, x, ridge=0.1), z @ weights + y.mean(0), atol=1e-6)

    def test_noisy_wide_features_want_a_larger_ridge_than_clean_narrow_ones(self) -> None:
        x, y = data(60, noise=3.0)
        wide = np.concatenate([x, np.random.default_rng(3).normal(size=(60, 300))], axis=1)
        groups = np.repeat(np.arange(12), 5)
        clean = data(60)
        assert probes.chosen_ridge(wide, y, groups) > probes.chosen_ridge(*clean, groups)


def test_a_small_network_reads_what_no_line_can() -> None:
    rng = np.random.default_rng(0)
    x, x_test = rng.uniform(-2, 2, (600, 2)), rng.uniform(-2, 2, (200, 2))
    y, y_test = (np.stack([np.abs(z[:, 0])], axis=1) for z in (x, x_test))
    assert probes.r2(probes.linear_probe(x, y, x_test), y_test)[0] < 0.1
    assert probes.r2(probes.mlp_probe(x, y, x_test, steps=300), y_test)[0] > 0.9


def test_looking_up_gives_means_of_keys_and_of_all_where_a_key_is_new() -> None:
    y = np.array([[1.0], [3.0], [10.0]])
    told = probes.lookup_probe(np.array(["a", "a", "b"]), y, np.array(["a", "b", "c"]))
    assert told[:, 0].tolist() == [2.0, 10.0, pytest.approx(14 / 3)]


def test_a_constant_has_no_r2() -> None:
    assert np.isnan(probes.r2(np.zeros((5, 1)), np.ones((5, 1)))[0])


class TestRetrieval:
    def test_latents_that_are_motions_retrieve_the_same_motion_elsewhere(self) -> None:
        rng = np.random.default_rng(0)
        motion = rng.normal(size=(600, 3))
        scenes = rng.integers(0, 3, 600)
        cosine, random, n = probes.retrieval_cosine(motion * 2 + 1, motion, scenes, still=0.1)
        assert cosine > 0.9
        assert abs(random) < 0.15
        assert n == int((np.linalg.norm(motion, axis=1) > 0.1).sum())

    def test_latents_that_are_scenes_retrieve_nothing(self) -> None:
        rng = np.random.default_rng(0)
        motion, scenes = rng.normal(size=(500, 3)), rng.integers(0, 3, 500)
        cosine, _, _ = probes.retrieval_cosine(np.eye(3)[scenes], motion, scenes, still=0.0)
        assert abs(cosine) < 0.15

    def test_one_scene_alone_cannot_be_asked(self) -> None:
        motion = np.random.default_rng(0).normal(size=(20, 3))
        cosine, random, n = probes.retrieval_cosine(motion, motion, np.zeros(20), still=0.0)
        assert np.isnan(cosine)
        assert np.isnan(random)
        assert n == 0


class TestFigures:
    @pytest.mark.parametrize(
        ("name", "value", "passed"),
        [
            ("probe_r2", 0.6, True),
            ("probe_r2", 0.59, False),
            ("probe_r2", float("nan"), False),
            ("dead_codes", 0, True),
            ("dead_codes", 1, False),
            ("swap_r2", -3, None),
        ],
    )
    def test_a_figure_is_held_against_its_target(self, name: str, value: float, passed: bool | None) -> None:
        assert Figure(name=name, value=value, n=3).passed is passed

    def test_the_table_says_what_passed_and_what_was_not_measured(self) -> None:
        figures = [Figure(name="probe_r2", value=0.7, n=9), Figure(name="dead_codes", value=2, n=9)]
        text = format_figures(figures, title="latent actions", unmeasured=["transfer_gain: no aligned clips"])
        assert "PASS  probe_r2" in text
        assert "FAIL  dead_codes" in text
        assert "not measured: transfer_gain" in text
        assert "1 of 2 passed" in text
