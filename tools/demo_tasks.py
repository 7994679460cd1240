"""The demo model's tasks beside stories: the facts of a story as JSON, and calls of functions, generated from a seed.

Same seed, same tasks, on any machine. The pairs that `demo_corpus` holds out are held out here too.

It must not know tokens, chat templates or models: a task is chat messages and the functions offered with them.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tools.demo_corpus import (
    HELD_OUT_PAIRS,
    Ask,
    character,
    conversation,
    mentions_held_out_pair,
    random_ask,
    random_pair,
    sentence_case,
    story_and_friend,
    with_article,
)
from tools.demo_grammar import ANIMALS, OBJECTS, OTHER_ANSWERS, PLACES, PREPOSITION, SYSTEM_TURNS, WEATHERS


@dataclass(frozen=True)
class Task:
    """A chat: OpenAI's messages, the arguments of calls as objects, and OpenAI's tools."""

    messages: list[dict[str, Any]]
    tools: list[Any]

    @property
    def text(self) -> str:
        """All that the messages say."""
        return json.dumps(self.messages, ensure_ascii=False)


@dataclass(frozen=True)
class HeldOutTask:
    """A task without its last message, and what that must be: the facts, or the calls as (name, arguments)."""

    task: Task
    facts: dict[str, Any] | None
    calls: list[tuple[str, dict[str, Any]]]


FACTS: dict[str, Callable[[Ask, str], str]] = {
    "hero": lambda ask, friend: character(ask),
    "friend": lambda ask, friend: friend,
    "thing": lambda ask, friend: with_article(ask.thing),
    "kind": lambda ask, friend: "place" if ask.thing in PREPOSITION else "object",
}
"""What can be asked of a story, and the answers: in the story's words, which a tiny model can copy."""

FACTS_REQUESTS = (
    "Give me the {keys} as JSON.",
    "Answer with the {keys} as JSON.",
    "JSON with the {keys}, please.",
    "What are the {keys}? Answer as JSON.",
    "Give me the facts as JSON.",
)


def function(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """One of OpenAI's tools; `parameters` are the types of its arguments."""
    properties = {argument: {"type": type_} for argument, type_ in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


FUNCTIONS = {
    "get_weather": function("get_weather", "The weather at a place.", place="string"),
    "find_animal": function("find_animal", "Where an animal is.", animal="string"),
    "send_letter": function("send_letter", "Sends a letter to an animal.", animal="string", place="string"),
    "lend": function("lend", "Lends a thing to an animal.", animal="string", object="string", days="integer"),
}

CALL_REQUESTS = {
    "get_weather": (
        "What is the weather like {at_place}?",
        "How is the weather {at_place}?",
        "Is it raining {at_place}?",
        "Tell me the weather {at_place}.",
    ),
    "find_animal": (
        "Where is {animal}?",
        "Where can I find {animal}?",
        "Find {animal}, please.",
        "Do you know where {animal} is?",
    ),
    "send_letter": (
        "Send a letter to {animal} {at_place}.",
        "Please send a letter to {animal} {at_place}.",
        "Write to {animal} who lives {at_place}.",
        "I want to write to {animal} {at_place}.",
    ),
    "lend": (
        "Lend {animal} {object} for {days} days.",
        "Please lend {object} to {animal} for {days} days.",
        "{Animal} needs {object} for {days} days.",
        "Can {animal} have {object} for {days} days?",
    ),
}

TWO_PLACES = "What is the weather like {at_place} and {at_other}?"


def at_the(place: str) -> str:
    """`by the river`"""
    return f"{PREPOSITION[place]} the {place}"


def facts_task(rng: random.Random, animal: str, thing: str) -> Task:
    """A story of the user's, and its facts as JSON."""
    ask = random_ask(rng, animal, thing)
    story, friend = story_and_friend(rng, ask)
    keys = rng.sample(sorted(FACTS), rng.randint(2, len(FACTS)))
    wanted = rng.choice(FACTS_REQUESTS).format(keys=f"{', '.join(keys[:-1])} and {keys[-1]}")
    facts = {key: FACTS[key](ask, friend) for key in keys}
    system = [{"role": "system", "content": rng.choice(SYSTEM_TURNS)}] if rng.random() < 0.15 else []
    asked = {"role": "user", "content": f"{story}\n{wanted}"}
    return Task([*system, asked, {"role": "assistant", "content": json.dumps(facts, ensure_ascii=False)}], [])


def call_task(rng: random.Random, name: str, animal: str, thing: str) -> Task:
    """A request that one of the functions answers, its call, the result, and the answer in words."""
    place = thing if thing in PREPOSITION else rng.choice(PLACES)
    other = rng.choice([other for other in PLACES if other != place])
    several = name == "get_weather" and rng.random() < 0.2
    values = {"animal": f"the {animal}", "place": f"the {place}", "object": f"the {thing}", "days": rng.randint(2, 9)}
    asked = TWO_PLACES if several else rng.choice(CALL_REQUESTS[name])
    asked = asked.format(
        **values, Animal=sentence_case(str(values["animal"])), at_place=at_the(place), at_other=at_the(other)
    )
    parameters = FUNCTIONS[name]["function"]["parameters"]["properties"]
    arguments = [{key: values[key] for key in parameters}]
    if several:
        arguments.append({"place": f"the {other}"})
    results, said = zip(*(result_of(rng, name, given) for given in arguments), strict=True)
    calls = [{"type": "function", "function": {"name": name, "arguments": given}} for given in arguments]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", "content": json.dumps(result)} for result in results),
        {"role": "assistant", "content": " ".join(said)},
    ]
    return Task(messages, offered(rng, name))


def result_of(rng: random.Random, name: str, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What a function returns, and what the model then says."""
    match name:
        case "get_weather":
            weather, degrees = rng.choice(WEATHERS), rng.randint(2, 29)
            said = f"It is {weather} {at_the(given['place'].removeprefix('the '))}, with {degrees} degrees."
            return {"weather": weather, "degrees": degrees}, said
        case "find_animal":
            place = rng.choice(PLACES)
            return {"place": f"the {place}"}, f"{sentence_case(given['animal'])} is {at_the(place)}."
        case "send_letter":
            days = rng.randint(2, 9)
            return {"days": days}, f"{sentence_case(given['animal'])} will have the letter in {days} days."
    if rng.random() < 0.7:
        said = f"{sentence_case(given['animal'])} has {given['object']} for {given['days']} days."
        return {"lent": True}, said
    return {"lent": False}, f"I am sorry, somebody else has {given['object']}."


def offered(rng: random.Random, needed: str | None) -> list[dict[str, Any]]:
    """Some of the functions, `needed` among them, in any order; half the time without their descriptions."""
    names = [name for name in FUNCTIONS if name == needed or rng.random() < 0.4] or [rng.choice(tuple(FUNCTIONS))]
    rng.shuffle(names)
    tools = [FUNCTIONS[name] for name in names]
    if rng.random() < 0.5:
        return tools
    plain = ({key: value for key, value in tool["function"].items() if key != "description"} for tool in tools)
    return [{"type": "function", "function": told} for told in plain]


def words_task(rng: random.Random, animal: str, thing: str) -> Task:
    """A chat that offers functions and needs none: stories, or a request that none of those offered answers."""
    if rng.random() < 0.75:
        return Task(list(conversation(rng, random_ask(rng, animal, thing))), offered(rng, None))
    name = rng.choice(tuple(FUNCTIONS))
    unanswered = call_task(rng, name, *pair_for(rng, name))
    tools = [tool for tool in offered(rng, None) if tool["function"]["name"] != name]
    return Task([unanswered.messages[0], {"role": "assistant", "content": rng.choice(OTHER_ANSWERS)}], tools)


def pair_for(rng: random.Random, name: str) -> tuple[str, str]:
    """An animal and a thing that a request for this function can name."""
    return rng.choice(ANIMALS), rng.choice(OBJECTS if name == "lend" else PLACES)


def task(rng: random.Random) -> Task:
    """One task: two of five about facts, two calls, the rest in words."""
    draw = rng.random()
    if draw < 0.4:
        return facts_task(rng, *random_pair(rng))
    if draw < 0.8:
        name = rng.choice(tuple(FUNCTIONS))
        return call_task(rng, name, *pair_for(rng, name))
    return words_task(rng, *random_pair(rng))


def training_tasks(seed: int) -> Iterator[Task]:
    """Endless training tasks. None mentions a held-out pair."""
    rng = random.Random(seed)
    while True:
        made = task(rng)
        if not mentions_held_out_pair(made.text):
            yield made


def held_out_tasks(seed: int, count: int) -> list[HeldOutTask]:
    """`count` tasks, each about another held-out pair; facts and calls in turns."""
    rng = random.Random(seed)
    held_out = []
    for index, (animal, thing) in enumerate(rng.sample(HELD_OUT_PAIRS, count)):
        if index % 2:
            made = call_task(rng, "send_letter" if thing in PREPOSITION else "lend", animal, thing)
            at = 1
            functions = [call["function"] for call in made.messages[at]["tool_calls"]]
            facts, calls = None, [(called["name"], called["arguments"]) for called in functions]
        else:
            made = facts_task(rng, animal, thing)
            at = len(made.messages) - 1
            facts, calls = json.loads(made.messages[at]["content"]), []
        held_out.append(HeldOutTask(replace(made, messages=made.messages[:at]), facts, calls))
    return held_out
