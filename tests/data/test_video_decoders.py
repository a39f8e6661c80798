"""Every decoder returns exactly the frame asked for, or says by name why it cannot."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from tests.data.toy_episodes import frame_numbers, numbered_frames
from wam.contracts import WamError
from wam.data.benchmark import decoder_rates
from wam.data.decoders import ReaderPool, choose_backend, open_reader
from wam.data.video import VideoEncoding, encode_video, probe, read_frames

FRAMES = 90
H264 = {"crf": "18", "preset": "veryfast"}
RECIPES = {
    "ours": ("libx264", None),
    "closed-b-frames": ("libx264", {**H264, "g": "12", "bf": "3", "flags": "+cgop", "sc_threshold": "0"}),
    "open-gop": ("libx264", {**H264, "g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-pyramid=normal"}),
    "hevc": (
        "libx265",
        {"crf": "20", "preset": "ultrafast", "x265-params": "keyint=12:bframes=3:open-gop=1:log-level=0"},
    ),
    "av1": ("libsvtav1", {"crf": "30", "preset": "12", "g": "2"}),
}
BACKENDS = ("decord", "pyav", "torchcodec")


def encode(path: Path, recipe: str) -> Path:
    codec, options = RECIPES[recipe]
    frames = numbered_frames(FRAMES)
    if options is None:
        path.write_bytes(encode_video(frames, fps=10))
        return path
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: encode(folder / f"{name}.mp4", name) for name in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_returns_exactly_the_frames_asked_for_or_refuses_by_name(videos, recipe, backend):
    info = probe(videos[recipe])
    if backend == "torchcodec":
        pytest.importorskip("torchcodec.decoders", reason="torchcodec is optional and needs FFmpeg", exc_type=Exception)
        if recipe == "open-gop":
            with pytest.raises(WamError, match="groups of pictures are open"):
                open_reader(info, "torchcodec")
            return
    if backend == "decord" and recipe in ("open-gop", "hevc", "av1"):
        with pytest.raises(WamError, match="pyav"):
            open_reader(info, "decord")
        return
    reader = open_reader(info, backend)
    rng = np.random.default_rng(0)
    for wanted in (
        np.arange(FRAMES),
        rng.permutation(FRAMES),
        np.array([50, 50, 3, 89, 0, 12, 11, 13]),
        np.array([88]),
    ):
        assert frame_numbers(reader.frames(wanted)) == wanted.tolist()
    for single in rng.integers(0, FRAMES, 40):
        assert frame_numbers(reader.frames(np.array([single]))) == [single]


def test_the_refusal_of_decord_is_needed_because_alone_it_returns_wrong_frames(videos):
    decord = pytest.importorskip("decord")
    wrong = 0
    for recipe in ("open-gop", "hevc"):
        for index in range(FRAMES):
            reader = decord.VideoReader(str(videos[recipe]), num_threads=1)
            wrong += frame_numbers(reader.get_batch([index]).asnumpy()) != [index]
    assert wrong > 0


def test_auto_takes_decord_for_runs_where_it_is_exact_and_else_pyav(videos):
    assert choose_backend(probe(videos["ours"]), "auto", run=True) == "decord"
    assert choose_backend(probe(videos["ours"]), "auto", run=False) == "pyav"
    assert choose_backend(probe(videos["hevc"]), "auto", run=True) == "pyav"
    with pytest.raises(WamError, match=r"decord, pyav or torchcodec.*'cv2'"):
        choose_backend(probe(videos["ours"]), "cv2")


def test_our_files_have_closed_groups_no_b_frames_and_a_key_frame_every_few_frames(videos):
    info = probe(videos["ours"])
    assert info.closed_gop
    assert not info.b_frames
    assert info.frames == FRAMES
    assert np.diff(info.key_pts * float(info.time_base)).max() <= VideoEncoding().gop / 10 + 1e-9
    assert np.allclose(info.times, np.arange(FRAMES) / 10, atol=1e-9)
    assert not probe(videos["open-gop"]).closed_gop


def test_frames_by_time_are_those_shown_then_and_a_time_between_frames_is_an_error(videos):
    assert frame_numbers(read_frames(videos["ours"], timestamps=[0.0, 4.2, 8.9])) == [0, 42, 89]
    with pytest.raises(WamError, match=r"frame at 4\.2500 s"):
        read_frames(videos["ours"], timestamps=[4.25])
    with pytest.raises(WamError, match="frame numbers from 0 to 89"):
        read_frames(videos["ours"], indices=[90])


def test_decoders_agree_on_colours(videos):
    shown = [read_frames(videos["closed-b-frames"], backend=backend) for backend in ("decord", "pyav")]
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 3


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no-index", "missing"])
def test_a_corrupt_file_is_one_clear_sentence(videos, tmp_path, backend, damage):
    data = videos["ours"].read_bytes()
    path = tmp_path / "broken.mp4"
    broken = {"empty": b"", "text": b"not a video\n" * 50, "cut": data[: len(data) // 2], "no-index": data[:200]}
    if damage != "missing":
        path.write_bytes(broken[damage])
    with pytest.raises(WamError) as caught:
        read_frames(path, indices=[80], backend=backend)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expected ")


def test_damage_inside_a_picture_is_an_error_by_pyav_not_a_silent_grey_picture(videos, tmp_path):
    data = bytearray(videos["ours"].read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 400] = bytes(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(bytes(data))
    shown, refused = [], 0
    for index in range(FRAMES):
        try:
            shown += [(index, frame_numbers(read_frames(path, indices=[index], backend="pyav")))]
        except WamError:
            refused += 1
    wrong = [index for index, found in shown if found != [index]]
    assert refused > 0
    assert not wrong


def test_decoder_rates_tell_how_fast_each_is_or_why_it_cannot_read(videos):
    rates = decoder_rates(videos["hevc"], seconds=0.02)
    assert rates["pyav"].keys() == {"single", "window", "run"}
    assert min(rates["pyav"].values()) > 0
    assert "video_backend='pyav'" in rates["decord"]


def test_odd_sizes_and_uneven_frames_are_refused_before_anything_is_written():
    with pytest.raises(WamError, match=r"even height and width.*yuv444p"):
        encode_video(np.zeros((2, 15, 16, 3), np.uint8), fps=5)
    with pytest.raises(WamError, match="frame 1"):
        encode_video([np.zeros((16, 16, 3), np.uint8), np.zeros((8, 16, 3), np.uint8)], fps=5)


def _read_in_child(pool: ReaderPool, path: Path) -> list[int]:
    return frame_numbers(pool.frames(probe(path), np.array([7, 70])))


def test_a_pool_serves_threads_forks_and_pickling_without_sharing_a_reader(videos):
    pool, info = ReaderPool("decord"), probe(videos["ours"])
    assert frame_numbers(pool.frames(info, np.array([5]))) == [5]
    with ThreadPoolExecutor(4) as threads:
        wanted = np.random.default_rng(1).integers(0, FRAMES, (60, 3))
        found = list(threads.map(lambda rows: frame_numbers(pool.frames(info, rows)), wanted))
    assert found == wanted.tolist()
    assert _read_in_child(pickle.loads(pickle.dumps(pool)), videos["ours"]) == [7, 70]


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_pool_opened_before_a_fork_still_reads_in_the_child(videos):
    pool, info = ReaderPool("decord"), probe(videos["ours"])
    pool.frames(info, np.array([5]))
    receiver, sender = get_context("fork").Pipe(duplex=False)
    child = get_context("fork").Process(target=lambda: sender.send(_read_in_child(pool, videos["ours"])))
    child.start()
    assert receiver.poll(30), "the child hung or died"
    assert receiver.recv() == [7, 70]
    child.join(30)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_reading_thousands_of_windows_does_not_leak(videos, backend):
    pool, rng = ReaderPool(backend, size=2), np.random.default_rng(0)
    files = [probe(videos["ours"]), probe(videos["closed-b-frames"])]

    def read(count: int) -> int:
        for _ in range(count):
            pool.frames(files[rng.integers(2)], np.sort(rng.integers(0, FRAMES, 3)))
        return psutil.Process().memory_info().rss

    before = read(300)
    grown = read(2000) - before
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB more after 2000 windows"
    assert psutil.Process().num_fds() < 200


@pytest.mark.parametrize("width", [16, 24, 32, 48, 64, 80, 100, 130])
def test_the_default_decoder_reads_every_width(tmp_path: Path, width: int) -> None:
    path = tmp_path / "narrow.mp4"
    path.write_bytes(encode_video(np.zeros((4, width, width, 3), np.uint8), fps=10))
    assert read_frames(path, indices=range(4)).shape == (4, width, width, 3)
