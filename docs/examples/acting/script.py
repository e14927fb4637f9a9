"""An episode of a trained agent: `python script.py outputs`."""

import sys

import gymnasium

import worldflux

agent = worldflux.load_agent(sys.argv[1])
env = gymnasium.make("Pendulum-v1")
observation, _ = env.reset(seed=0)
total, ended = 0.0, False
while not ended:
    action = agent.act(observation)
    observation, reward, terminated, truncated, _ = env.step(action)
    total, ended = total + float(reward), terminated or truncated
print(f"return {total:.1f}")
