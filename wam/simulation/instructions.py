"""Sentences for tasks: several to train with and, apart, paraphrases that no training episode ever carries.

Written tasks have their own sentences; the others get a template from the task's name. Play carries the word "play".
"""

from __future__ import annotations

from wam.contracts import expected

PLAY = "play"

#: task -> (training sentences, held-out paraphrases)
_SENTENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "faucet-open": (
        ("open the faucet", "turn the faucet on", "rotate the faucet handle to open it", "let the water run"),
        ("switch the tap on", "please open the water faucet"),
    ),
    "faucet-close": (
        ("close the faucet", "turn the faucet off", "rotate the faucet handle to close it", "stop the water"),
        ("switch the tap off", "please close the water faucet"),
    ),
    "drawer-open": (
        ("open the drawer", "pull the drawer open", "pull the drawer out by its handle", "slide the drawer out"),
        ("please open up the drawer", "draw the drawer towards you"),
    ),
    "drawer-close": (
        ("close the drawer", "push the drawer shut", "push the drawer in", "slide the drawer in"),
        ("please shut the drawer", "press the drawer closed"),
    ),
    "button-press-topdown": (
        ("press the button", "press the red button down", "push the button from above", "push down on the button"),
        ("hit the red button from the top", "please press down the button"),
    ),
    "reach": (
        ("reach the green goal", "move the hand to the green ball", "go to the goal", "move to the green marker"),
        ("bring the gripper to the green spot", "please reach for the green target"),
    ),
    "push": (
        ("push the puck to the goal", "push the block to the green marker", "slide the puck to the goal"),
        ("shove the puck over to the green target", "please push the object to the goal"),
    ),
    "window-open": (
        ("open the window", "slide the window open", "push the window handle to open it"),
        ("please open up the window", "move the window pane to open it"),
    ),
    "window-close": (
        ("close the window", "slide the window shut", "push the window handle to close it"),
        ("please shut the window", "move the window pane to close it"),
    ),
    "door-open": (
        ("open the door", "pull the door open", "swing the door open by its handle"),
        ("please open up the door", "draw the door open"),
    ),
    "door-close": (
        ("close the door", "push the door shut", "swing the door closed"),
        ("please shut the door", "press the door closed"),
    ),
    "door-lock": (
        ("lock the door", "turn the lock to lock the door", "rotate the latch to lock it"),
        ("please lock up the door", "turn the latch so that the door is locked"),
    ),
    "door-unlock": (
        ("unlock the door", "turn the lock to unlock the door", "rotate the latch to unlock it"),
        ("please release the lock of the door", "turn the latch so that the door is unlocked"),
    ),
    "handle-press": (
        ("press the handle down", "push the handle down", "press the lever handle"),
        ("please push down on the handle", "lower the handle"),
    ),
    "handle-pull": (
        ("pull the handle up", "lift the handle", "raise the lever handle"),
        ("please pull up on the handle", "bring the handle up"),
    ),
    "plate-slide": (
        ("slide the plate into the goal", "push the puck into the net", "slide the disc forward into the cabinet"),
        ("shove the plate into the goal", "please move the puck into the net"),
    ),
    "plate-slide-back": (
        ("slide the plate back", "pull the puck out of the net", "slide the disc back out of the goal"),
        ("bring the plate back out", "please take the puck out of the net"),
    ),
    "coffee-button": (
        ("press the coffee button", "push the button of the coffee machine", "start the coffee machine"),
        ("turn on the coffee maker", "please press the button on the coffee machine"),
    ),
    "pusht": (
        ("push the T onto the goal", "push the T block onto the green target", "move the T onto its outline"),
        ("align the T with the green shape", "please push the T into place"),
    ),
}


def task_of(name: str) -> str:
    """The bare task of an environment's name: `metaworld/faucet-open-v3` -> `faucet-open`."""
    return name.rpartition("/")[2].removesuffix("-v3")


def sentences(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training sentences (the first is canonical) and held-out paraphrases of a task, given bare or as an environment."""
    bare = task_of(task)
    if not bare:
        raise expected("the name of a task", got=repr(task), do="give one such as 'faucet-open'")
    if bare == PLAY:
        return (PLAY,), (PLAY,)
    if bare in _SENTENCES:
        return _SENTENCES[bare]
    words = bare.replace("-", " ")
    return (words, f"do the task {words}", f"carry out {words}"), (f"please do {words}", f"perform {words} now")
