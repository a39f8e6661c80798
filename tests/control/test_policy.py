"""What drives a robot is known by what it can do."""

import numpy as np

from wam.control.policy import Policy


class Still:
    chunk = 4

    def reset(self, index=None):
        pass

    def act(self, observations):
        return np.zeros((len(observations), self.chunk, 2))


def test_anything_that_acts_in_chunks_is_a_policy():
    assert isinstance(Still(), Policy)
    assert not isinstance(np.zeros(3), Policy)


def test_the_interface_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, wam.control.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
