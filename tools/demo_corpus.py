"""The demo model's world: short animal stories and the chat turns that ask for them, generated from a seed.

Same seed, same text, on any machine. Some (animal, thing) pairs are held out by hash: no training document
mentions both words of such a pair, though each word is common on its own, so a story about a held-out pair
shows that the model combines what it was asked for instead of reciting.

It must not know tokens, chat templates or models: a document is plain text or a list of chat messages.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from tools.demo_grammar import (
    ADJECTIVES,
    ANIMALS,
    DAYTIMES,
    EMOJI,
    FINE_ADJECTIVES,
    FIRST_REQUESTS,
    GREETING_ANSWERS,
    GREETINGS,
    LATER_REQUESTS,
    NAMES,
    OBJECT_ADJECTIVES,
    OBJECT_OPENINGS,
    OBJECT_PLOTS,
    OBJECT_RELATIONS,
    OPEN_REQUESTS,
    OTHER_ANSWERS,
    OTHER_QUESTIONS,
    PLACE_ADJECTIVES,
    PLACE_OPENINGS,
    PLACE_PLOTS,
    PLACE_RELATIONS,
    PREPOSITION,
    PRONOUNS,
    SOMEWHERES,
    SYSTEM_TURNS,
    THANKS,
    THANKS_ANSWERS,
    THINGS,
    WEATHERS,
)

Message = dict[str, str]


Document = str | list[Message]


HELD_OUT_ONE_IN = 12


def is_held_out(animal: str, thing: str) -> bool:
    """Whether the pair is kept out of training. By hash, so it never depends on the order of the lists."""
    return hashlib.sha256(f"{animal}|{thing}".encode()).digest()[0] % HELD_OUT_ONE_IN == 0


HELD_OUT_PAIRS = tuple(pair for pair in product(ANIMALS, THINGS) if is_held_out(*pair))


_WORDS = re.compile(r"[a-z]+")


def mentions_held_out_pair(text: str) -> bool:
    """Whether both words of a held-out pair occur anywhere in the text, as subject, friend or scenery."""
    words = set(_WORDS.findall(text.lower()))
    return any(is_held_out(a, t) for a in words.intersection(ANIMALS) for t in words.intersection(THINGS))


@dataclass(frozen=True)
class Ask:
    """What a request names. The relation says how the thing enters: it decides phrasing and plot together."""

    animal: str
    adjective: str | None
    name: str | None
    thing: str
    relation: str

    @property
    def must_contain(self) -> tuple[str, ...]:
        return tuple(word for word in (self.animal, self.adjective, self.name, self.thing) if word)


def with_article(phrase: str) -> str:
    """`owl` -> `an owl`; `unicorn` is the one vowel here that is not heard as one."""
    return f"an {phrase}" if phrase[0] in "aeiou" and not phrase.startswith("unicorn") else f"a {phrase}"


def sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def invented_name(rng: random.Random) -> str:
    """A name nobody listed, such as `Talumo`: teaches copying a name from the request, not recalling one."""
    syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3)))]
    return sentence_case("".join(syllables) + rng.choice(("", "", "n", "l", "r", "k")))


def random_ask(rng: random.Random, animal: str, thing: str) -> Ask:
    """Dress a pair up: half the characters get an adjective, a third a name."""
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.5 else None
    name = None
    if rng.random() < 0.35:
        name = rng.choice(tuple(NAMES)) if rng.random() < 0.7 else invented_name(rng)
    relation = rng.choice(tuple(PLACE_RELATIONS if thing in PREPOSITION else OBJECT_RELATIONS))
    return Ask(animal, adjective, name, thing, relation)


def character(ask: Ask) -> str:
    """`a brave fox named Zoë`"""
    phrase = with_article(f"{ask.adjective} {ask.animal}" if ask.adjective else ask.animal)
    return f"{phrase} named {ask.name}" if ask.name else phrase


def thing_fields(thing: str, adjective: str) -> dict[str, str]:
    """The template fields of a place or an object; one noun fills both, a plot uses only its own kind."""
    phrase = with_article(adjective + thing)
    return {
        "place": thing,
        "a_place": phrase,
        "at_a_place": f"{PREPOSITION.get(thing, 'at')} {phrase}",
        "object": thing,
        "an_object": phrase,
    }


def what_is_asked(rng: random.Random, ask: Ask) -> str:
    """`a brave fox named Zoë who finds a lantern`"""
    pattern = PLACE_RELATIONS[ask.relation] if ask.thing in PREPOSITION else rng.choice(OBJECT_RELATIONS[ask.relation])
    possessive = PRONOUNS[NAMES.get(ask.name, "it") if ask.name else "it"][1]
    return pattern.format(hero=character(ask), his=possessive, **thing_fields(ask.thing, ""))


def request(rng: random.Random, what: str, phrasings: Sequence[str]) -> str:
    """One user turn. People also type in lower case and leave the full stop out."""
    text = rng.choice(phrasings).format(what=what)
    if rng.random() < 0.1:
        text = text.rstrip(".?")
    if rng.random() < 0.1:
        text = text[0].lower() + text[1:]
    return text


def story(rng: random.Random, ask: Ask) -> str:
    """A story of five or six beats that mentions everything in `ask.must_contain`."""
    return story_and_friend(rng, ask)[0]


def story_and_friend(rng: random.Random, ask: Ask) -> tuple[str, str]:
    """A story, and who the friend in it is: `a sleepy owl`."""
    friend_animal = rng.choice([animal for animal in ANIMALS if animal != ask.animal])
    friend_adjective = rng.choice(ADJECTIVES) + " " if rng.random() < 0.5 else ""
    he, his, him = PRONOUNS[NAMES.get(ask.name, "it") if ask.name else rng.choice(("he", "she", "it"))]
    is_place = ask.thing in PREPOSITION
    adjective = rng.choice(PLACE_ADJECTIVES if is_place else OBJECT_ADJECTIVES)
    hero = ask.name or f"the {ask.animal}"
    fields = thing_fields(ask.thing, adjective) | {
        "hero_intro": character(ask),
        "hero": hero,
        "he": he,
        "his": his,
        "him": him,
        "friend_intro": with_article(friend_adjective + friend_animal),
        "friend": f"the {friend_animal}",
        "a_fine_object": with_article(f"{rng.choice(FINE_ADJECTIVES)} {ask.thing}"),
        "somewhere": rng.choice(SOMEWHERES),
    }
    fields |= {sentence_case(key): sentence_case(text) for key, text in fields.items()}
    openings = PLACE_OPENINGS if is_place else OBJECT_OPENINGS[ask.relation]
    plot = rng.choice(PLACE_PLOTS if is_place else OBJECT_PLOTS[ask.relation])
    # Completions are usually tried with "Once upon a time", so that opening gets a share of its own.
    opening = rng.choice([text for text in openings if text.startswith("Once")] if rng.random() < 0.4 else openings)
    sentences = [
        text.format(weather=rng.choice(WEATHERS), daytime=rng.choice(DAYTIMES), **fields)
        for text in (opening, *(rng.choice(beat) for beat in plot))
        if text
    ]
    # Likely after a named hero, rare otherwise: so greedy decoding produces both kinds of ending.
    if rng.random() < (0.8 if ask.name else 0.1):
        sentences.append(EMOJI[ask.animal])
    return " ".join(sentences), fields["friend_intro"]


def turn(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def story_turn(rng: random.Random, ask: Ask, phrasings: Sequence[str]) -> list[Message]:
    """One request and its story. A few requests leave the thing, or everything, to the teller."""
    draw = rng.random()
    if draw < 0.03:
        user = rng.choice(OPEN_REQUESTS)
    else:
        user = request(rng, character(ask) if draw < 0.1 else what_is_asked(rng, ask), phrasings)
    return turn(user, story(rng, ask))


def random_pair(rng: random.Random) -> tuple[str, str]:
    return rng.choice(ANIMALS), rng.choice(THINGS)


def conversation(rng: random.Random, ask: Ask) -> list[Message]:
    """A chat around one asked-for story, with what people put before and after it."""
    messages: list[Message] = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_TURNS)})
    if rng.random() < 0.08:
        messages += turn(rng.choice(GREETINGS), rng.choice(GREETING_ANSWERS))
    if rng.random() < 0.04:
        messages += turn(rng.choice(OTHER_QUESTIONS), rng.choice(OTHER_ANSWERS))
    messages += story_turn(rng, ask, FIRST_REQUESTS)
    if rng.random() < 0.25:
        messages += story_turn(rng, random_ask(rng, *random_pair(rng)), LATER_REQUESTS)
    if rng.random() < 0.1:
        messages += turn(rng.choice(THANKS), rng.choice(THANKS_ANSWERS))
    return messages


def document(rng: random.Random, animal: str, thing: str) -> Document:
    """One document about the pair: two of three are chats, the rest plain stories."""
    ask = random_ask(rng, animal, thing)
    return conversation(rng, ask) if rng.random() < 0.67 else story(rng, ask)


def document_text(doc: Document) -> str:
    return doc if isinstance(doc, str) else "\n".join(message["content"] for message in doc)


def training_documents(seed: int) -> Iterator[Document]:
    """Endless training documents. None mentions a held-out pair."""
    rng = random.Random(seed)
    while True:
        doc = document(rng, *random_pair(rng))
        if not mentions_held_out_pair(document_text(doc)):
            yield doc


def held_out_documents(seed: int) -> Iterator[Document]:
    """Endless documents, each about a held-out pair."""
    rng = random.Random(seed)
    while True:
        yield document(rng, *rng.choice(HELD_OUT_PAIRS))


@dataclass(frozen=True)
class HeldOutRequest:
    """A chat that asks for a story about a held-out pair, and the words its answer must contain."""

    messages: list[Message]
    must_contain: tuple[str, ...]


def held_out_requests(seed: int, count: int = 200) -> list[HeldOutRequest]:
    """`count` first requests, each about another held-out pair, a quarter of them after a system turn."""
    rng = random.Random(seed)
    requests = []
    for pair in rng.sample(HELD_OUT_PAIRS, count):
        ask = random_ask(rng, *pair)
        system = [{"role": "system", "content": rng.choice(SYSTEM_TURNS)}] if rng.random() < 0.25 else []
        user = {"role": "user", "content": request(rng, what_is_asked(rng, ask), FIRST_REQUESTS)}
        requests.append(HeldOutRequest([*system, user], ask.must_contain))
    return requests
