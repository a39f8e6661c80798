"""Any file a person may have becomes clips or a reason; what clips show is what the file shows at their times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.data.curation.raw import SMALL, frames_of, item, outcome, scene, turn, write, write_sound
from tests.data.toy_episodes import frame_numbers, numbered_frames
from wam.data.curation.clips import curate_item
from wam.data.curation.probe import Picture, RawVideo
from wam.data.curation.records import Clip, Opened, Unit
from wam.data.curation.transcode import Framer, to_rgb
from wam.data.video import probe


def anything(**changes):
    """Settings that keep clips as they are."""
    return {"min_motion": 0.0, "min_moving": 0.0, "max_blur": 1.0, "detector": "none", **changes}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("zero-length.mp4", b"", "empty"),
        ("text.mp4", b"this is no video\n" * 100, "unreadable"),
        ("header-only.mp4", bytes.fromhex("0000001c6674797069736f6d0000020069736f6d69736f326d703431"), "unreadable"),
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "unreadable"),
    ],
)
def test_a_file_that_is_no_video_is_recorded_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    clips, rejections = outcome(tmp_path / name)
    assert not clips
    assert [(one.reason, one.source) for one in rejections] == [(reason, name)]
    assert rejections[0].detail


def test_a_file_with_sound_only_is_recorded(tmp_path):
    clips, rejections = outcome(write_sound(tmp_path / "sound.mp4"))
    assert not clips
    assert [one.reason for one in rejections] == ["no video"]


def test_a_truncated_file_gives_what_it_has_and_says_where_it_ends(tmp_path):
    path = write(tmp_path / "whole.mp4", scene(120))
    whole, none = outcome(path)
    assert not none
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clips, rejections = outcome(cut)
    assert [clip.sha256 for clip in clips[:1]] == [clip.sha256 for clip in whole[:1]]
    assert clips[-1].end < whole[-1].end
    assert {one.reason for one in rejections} <= {"truncated", "damaged", "short"}
    assert {one.reason for one in rejections} & {"truncated", "damaged"}


def test_after_a_broken_place_a_file_goes_on_and_the_place_is_recorded(tmp_path):
    path = write(tmp_path / "broken.mp4", scene(200))
    whole, _ = outcome(path)
    data = bytearray(path.read_bytes())
    at = int(len(data) * 0.45)
    data[at : at + 400] = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    path.write_bytes(data)
    clips, rejections = outcome(path)
    assert "damaged" in {one.reason for one in rejections}
    assert clips[0].sha256 == whole[0].sha256
    assert clips[-1].end == pytest.approx(whole[-1].end)
    assert sum(clip.seconds for clip in clips) < sum(clip.seconds for clip in whole)


def test_variable_rates_are_resampled_by_the_time_of_each_frame(tmp_path):
    rng = np.random.default_rng(0)
    times = np.round(np.concatenate([[0], np.cumsum(rng.uniform(0.01, 0.19, 60))]), 3)
    path = write(tmp_path / "variable.mp4", numbered_frames(61), times=times.tolist(), options={"bf": "0"})
    (clip,), _ = outcome(path, **anything(max_seconds=30.0, slow_sources=True))
    assert clip.source_fps != pytest.approx(10, abs=0.01)
    shown = np.searchsorted(times, np.arange(clip.frames) / 10 + 0.004, side="right") - 1
    assert frame_numbers(frames_of(clip, tmp_path)) == shown.tolist()
    assert clip.frames == pytest.approx(10 * times[-1], abs=2)


def test_thirty_frames_a_second_become_every_third(tmp_path):
    path = write(tmp_path / "thirty.mp4", numbered_frames(90), fps=30)
    (clip,), _ = outcome(path, **anything(max_seconds=3.0))
    assert frame_numbers(frames_of(clip, tmp_path)) == list(range(0, 90, 3))
    assert (clip.start, clip.end, clip.frames) == (0, 3, 30)
    info = probe(tmp_path / f"{clip.id}.mp4")
    assert (info.codec, info.closed_gop, info.b_frames, info.fps) == ("h264", True, False, 10)


def test_a_gap_without_frames_begins_a_new_clip(tmp_path):
    times = [i / 20 for i in range(30)] + [4 + i / 20 for i in range(30)]
    clips, _ = outcome(write(tmp_path / "gap.mp4", scene(60), times=times))
    assert [(round(c.start, 2), round(c.end, 1)) for c in clips] == [(0, 1.5), (4, 5.5)]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_file_is_seen_upright(tmp_path, degrees):
    upright = np.repeat(np.kron(np.arange(12).reshape(3, 4), np.ones((32, 32)))[..., None] * 20, 3, -1)
    lying = np.rot90(upright, degrees // 90)  # what the player turns clockwise
    path = turn(write(tmp_path / "turned.mp4", np.repeat(lying[None].astype(np.uint8), 20, 0)), degrees)
    (clip,), _ = outcome(path, **anything(size=(96, 128)))
    assert np.abs(frames_of(clip, tmp_path)[0].astype(int) - upright).mean() < 5


def test_a_vertical_file_keeps_its_middle_and_its_proportions(tmp_path):
    frames = np.full((20, 256, 96, 3), 40, np.uint8)
    frames[:, 104:152, 24:72] = 220  # a square in the middle
    (clip,), _ = outcome(write(tmp_path / "vertical.mp4", frames), **anything())
    bright = frames_of(clip, tmp_path)[0][..., 0] > 130
    assert bright.any(1).sum() == pytest.approx(32, abs=2)
    assert bright.any(0).sum() == pytest.approx(32, abs=2)
    assert bright[32, 32]


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    frames = np.full((20, 96, 96, 3), 40, np.uint8)
    frames[:, 32:64, 32:64] = 220
    (clip,), _ = outcome(write(tmp_path / "wide.mp4", frames, pixel=Fraction(2)), **anything())
    bright = frames_of(clip, tmp_path)[0][..., 0] > 130
    assert bright.any(0).sum() == pytest.approx(2 * bright.any(1).sum(), abs=3)


def test_colours_of_high_definition_come_out_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    frames = np.repeat(np.kron(rng.integers(40, 215, (1, 3, 4, 3)), np.ones((1, 32, 32, 1))).astype(np.uint8), 10, 0)
    marks = {
        "standard": ({}, (2, 0)),
        "high": ({"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"}, (1, 1)),
        "full": ({"x264-params": "fullrange=on"}, (2, 2)),
    }
    for name, (options, mark) in marks.items():
        path = write(tmp_path / f"{name}.mp4", frames, options=options)
        with RawVideo(item(path)) as video:
            picture = next(p for p in video.pictures() if isinstance(p, Picture))
            assert (int(picture.frame.colorspace), int(picture.frame.color_range)) == mark
            shown = to_rgb(Framer((96, 128)).crop(picture))
            player = picture.frame.to_ndarray(format="rgb24")  # by the matrix that the file names
        assert np.abs(shown.astype(int) - player).mean() < 4, name


def test_times_that_run_backwards_are_recorded(tmp_path):
    path = tmp_path / "twice.ts"
    for _ in range(2):  # two recordings, one written behind the other
        part = write(tmp_path / "part.ts", scene(40), container="mpegts")
        with path.open("ab") as file:
            file.write(part.read_bytes())
    clips, rejections = outcome(path)
    assert len(clips) == 1
    assert "times run backwards" in " ".join(one.detail for one in rejections)


def test_a_picture_that_changes_its_shape_begins_a_new_clip(tmp_path):
    path = tmp_path / "shapes.ts"
    with path.open("wb") as file:
        for number, shape in enumerate(((96, 128), (128, 64))):
            frames = scene(40, height=shape[0], width=shape[1])
            part = write(tmp_path / "part.ts", frames, container="mpegts", start=40 * number, options={"bf": "0"})
            file.write(part.read_bytes())
    clips, rejections = outcome(path)
    assert [clip.frames for clip in clips] == [20, 20]
    assert clips[1].start - clips[0].start == pytest.approx(2, abs=0.01)
    assert not rejections


def test_clips_do_not_cross_a_shot_cut(tmp_path):
    frames = np.concatenate([scene(30, seed=1), scene(37, seed=2), scene(21, seed=3)])
    path = write(tmp_path / "shots.mp4", frames)
    for detector in ("adaptive", "content"):
        clips, rejections = outcome(path, detector=detector)
        assert [round(20 * clip.start) for clip in clips] == [0, 30, 67], detector
        assert [round(20 * clip.end) for clip in clips] == [30, 67, 88], detector
        assert not rejections
    (first, second, third), _ = outcome(path, detector="none", max_seconds=1.6)
    assert (first.start, second.start, third.start) == (0, 1.6, 3.2)


@pytest.mark.parametrize(
    ("frames", "changes", "reason"),
    [
        (scene(40, moves=False), {}, "still"),
        (scene(40, seed=1) // 16 * 0 + 90, {"min_motion": 0.0, "min_moving": 0.0}, "blurred"),
        (scene(8), {}, "short"),
        (scene(40), {"min_side": 100}, "small"),
        (scene(40), {"fps": 30.0}, "slow"),
    ],
)
def test_what_the_filters_leave_out_is_recorded_with_the_reason(tmp_path, frames, changes, reason):
    path = write(tmp_path / "video.mp4", frames)
    clips, rejections = outcome(path, **changes)
    assert not clips
    assert {one.reason for one in rejections} == {reason}


def test_the_filters_keep_a_sharp_moving_clip_and_measure_blur_and_motion(tmp_path):
    import cv2

    frames = scene(40)
    (sharp,), _ = outcome(write(tmp_path / "sharp.mp4", frames))
    soft_frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in frames])
    (soft,), _ = outcome(write(tmp_path / "soft.mp4", soft_frames), max_blur=1.0)
    assert sharp.blur < 0.5 < soft.blur
    assert sharp.moving == 1
    (slower,), _ = outcome(write(tmp_path / "slower.mp4", np.repeat(frames[:20], 2, 0)))
    assert 0 < slower.motion < sharp.motion


@pytest.mark.parametrize("detector", ["adaptive", "content", "none"])
def test_work_that_goes_on_after_any_clip_gives_the_rest_bit_for_bit(tmp_path, detector):
    frames = np.concatenate([scene(50, seed=1), scene(30, seed=2), scene(47, seed=3)])
    path = write(tmp_path / "long.mp4", frames, options={"bf": "2"})
    changes = {"detector": detector, "max_seconds": 1.3}
    whole, rejected = outcome(path, **changes)
    assert len(whole) >= 4
    from dataclasses import replace

    config = replace(SMALL, **changes)
    for done, clip in enumerate(whole, start=1):
        rest = [e for e in curate_item(Unit(item=item(path), start=clip.end), config) if isinstance(e, Clip)]
        assert rest == whole[done:]
    assert {one.reason for one in rejected} <= {"short"}


ODD = (
    "with space.mp4", "ümläut 手.mp4", "-dash.mp4", "new\nline.mp4", "a:b.mp4", "50%d.mp4", "quote'\".mp4", "eq=ual.mp4",
    "UPPER.MP4", "two.dots.mp4", "bytes\udcff.mp4",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_odd_names_are_no_obstacle(tmp_path: Path, name: str) -> None:
    import os

    from wam.data.curation.sources import find_items

    plain = write(tmp_path / "plain" / "video.mp4", scene(20))
    folder = tmp_path / "odd"
    folder.mkdir()
    target = os.path.join(os.fsencode(folder), os.fsencode(name))  # noqa: PTH118
    with open(target, "wb") as file:  # noqa: PTH123
        file.write(plain.read_bytes())
    (found,) = find_items([folder]).items
    events = list(curate_item(Unit(item=found), SMALL))
    assert isinstance(events[0], Opened)
    (clip,) = [event for event in events if isinstance(event, Clip)]
    assert clip.source.encode().decode() == found.name
    (expected,), _ = outcome(plain)
    assert clip.sha256 == expected.sha256
