import pytest

from wam.contracts import WamError
from wam.simulation.environment import environment_names
from wam.simulation.instructions import PLAY, sentences, task_of


def test_no_held_out_paraphrase_is_ever_trained_on_by_any_task():
    names = environment_names()
    trained = {sentence for name in names for sentence in sentences(name)[0]}
    held_out = {sentence for name in names for sentence in sentences(name)[1]}
    assert not trained & held_out


@pytest.mark.parametrize("name", environment_names())
def test_every_task_has_several_sentences_and_paraphrases(name):
    train, held_out = sentences(name)
    assert len(set(train)) >= 3
    assert len(set(held_out)) >= 2


def test_no_two_tasks_share_a_sentence():
    names = environment_names()
    every = [sentence for name in names for part in sentences(name) for sentence in part]
    assert len(every) == len(set(every))


def test_names_and_bare_tasks_mean_the_same():
    assert task_of("metaworld/door-open-v3") == "door-open"
    assert sentences("door-open") == sentences("metaworld/door-open-v3") == sentences("door-open-v3")


def test_play_is_called_play():
    assert sentences(PLAY)[0] == (PLAY,)


def test_no_task_is_an_error():
    with pytest.raises(WamError):
        sentences("")
