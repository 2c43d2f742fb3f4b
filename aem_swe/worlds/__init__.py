"""Multi-turn text games behind the seams of tasks and sandboxes: ALFWorld on TextWorld, the paper's other world.

A game is a sandbox whose only tool is an action: `Sandbox.run(text)` plays one move in a process of its own, what it
returns is what the game answers, `diff` is the record of the episode, and a grader turns that record into the paper's
reward. So episodes, drivers and trainers know nothing of games.

    layouts.py      what the alfworld package ships: domain, grammar, goals, rooms (read as files, never imported)
    generate.py     new problems of the six task families in those rooms; pddl.py writes them down
    official.py     the games of ALFWorld's own download
    source.py       data.source=alfworld: problems of a recipe
    server.py       runs in another process: textworld and alfworld (and its hand-coded expert), one process per episode
    games.py        starts the server and asks it for games; sandbox.py is one of them, from the host's side
    reward.py       10 / 0 / a penalty for invalid actions
    expert.py       our own expert; demonstrations.py lets it play in simulation.py, for a warm start
    survey.py       how many generated games the expert solves, family by family

Not covered: ALFWorld's visual worlds (THOR), human-written goals, WebShop.
"""

FAMILIES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's task families, in its own order (1 to 6)."""
ALFWORLD, SMALL = "alfworld", "alfworld_small"


def is_world(source: str) -> bool:
    """Whether a recipe's data.source names a text world: source.py says which there are."""
    return source == SMALL or source.partition(":")[0] == ALFWORLD
