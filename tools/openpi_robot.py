"""openpi's side of `make test-openpi`: run by the Python that has the package openpi-client, never importing wam.

.venv-openpi/bin/python tools/openpi_robot.py PORT --horizon 4 --episodes 2

Its own runtime, chunk broker and websocket client drive an environment that lives in the process behind this one's standard
input and output: each frame there is four bytes of length and then msgpack, as its own packer writes it.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from openpi_client import msgpack_numpy
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.runtime import Runtime
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def ask(**told: Any) -> Any:
    """Say something to the process that holds the environment, and read its answer."""
    frame = msgpack_numpy.packb(told)
    sys.stdout.buffer.write(len(frame).to_bytes(4, "big") + frame)
    sys.stdout.buffer.flush()
    length = int.from_bytes(sys.stdin.buffer.read(4), "big")
    return msgpack_numpy.unpackb(sys.stdin.buffer.read(length))


class Robot(Environment):
    def reset(self) -> None:
        ask(do="reset")

    def is_episode_complete(self) -> bool:
        return ask(do="done")["done"]

    def get_observation(self) -> dict:
        return ask(do="observe")

    def apply_action(self, action: dict) -> None:
        ask(do="act", action=action["actions"])


class Timed:
    """The websocket client, with a clock beside each request."""

    def __init__(self, policy: WebsocketClientPolicy) -> None:
        self.policy, self.milliseconds = policy, []

    def infer(self, observation: dict) -> dict:
        begun = time.perf_counter()
        reply = self.policy.infer(observation)
        self.milliseconds.append(1e3 * (time.perf_counter() - begun))
        ask(do="chunk", actions=reply["actions"], timing=reply["server_timing"])
        return reply

    def reset(self) -> None:
        self.policy.reset()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--horizon", type=int, required=True, help="actions carried out of each chunk")
    parser.add_argument("--episodes", type=int, default=1)
    arguments = parser.parse_args()
    client = WebsocketClientPolicy(port=arguments.port)  # its default host
    policy = Timed(client)
    agent = PolicyAgent(policy=ActionChunkBroker(policy=policy, action_horizon=arguments.horizon))
    Runtime(environment=Robot(), agent=agent, subscribers=[], num_episodes=arguments.episodes).run()
    ask(do="end", metadata=client.get_server_metadata(), milliseconds=policy.milliseconds)


if __name__ == "__main__":
    main()
