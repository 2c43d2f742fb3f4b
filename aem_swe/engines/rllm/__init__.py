"""The cluster engine: rLLM drives the run, verl trains, vLLM generates, and AEM and our agent plug in.

settings.py    recipe -> the configuration of rLLM and verl
launch.py      AgentTrainer inside Ray, with our backend
backend.py     rLLM's verl backend with AEM (needs rllm; rows.py and staleness.py do not)
flow.py        our agent in our sandboxes, as an rLLM AgentFlow; hand_over.py: its episodes, as rLLM trains on them
"""
