"""Requests and the answers that a good model gives to them: some copy from the request, some do not."""

import re
from dataclasses import dataclass

REPORT = """\
On Tuesday 14 March the harbour office at Lindeskov recorded the arrival of the cargo ship Marigold \
Trader, which had sailed from Port Elsham with 1,240 tonnes of timber. Captain Ines Halvorsen reported \
that the steering gear had failed twice during the crossing. The ship was moored at berth 7 by two tugs, \
the Otter and the Little Auk. An inspection by the engineer Tomasz Wilk found a cracked hydraulic line, \
and repairs are expected to take until Friday 17 March. The owners, Greenwater Shipping of Dunmore, have \
asked for the cargo to be unloaded meanwhile. Nobody was hurt. The harbour master, Bettina Krause, has \
closed berth 8 to other vessels, because the crane there will be needed for the timber."""

CODE = '''def load_orders(path, limit=None):
    """Read the orders in a CSV file, newest first."""
    orders = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            order = Order(
                number=int(row["number"]),
                customer=row["customer"].strip(),
                placed=datetime.fromisoformat(row["placed"]),
                total=Decimal(row["total"]),
            )
            if order.total <= 0:
                continue
            orders.append(order)
    orders.sort(key=lambda order: order.placed, reverse=True)
    return orders if limit is None else orders[:limit]


def total_by_customer(orders):
    """Sum the orders of each customer."""
    totals = {}
    for order in orders:
        totals[order.customer] = totals.get(order.customer, 0) + order.total
    return totals
'''

CHANGES = {
    "limit=None)": "limit=None, *, keep_empty=False)",
    "if order.total <= 0:": "if order.total <= 0 and not keep_empty:",
    "totals = {}": "totals = defaultdict(Decimal)",
    "] = totals.get(order.customer, 0) + order.total": "] += order.total",
}
EDITED = CODE
for old, new in CHANGES.items():
    EDITED = EDITED.replace(old, new)

LETTER = """\
Dear Ms Okafor, thank you for your order of three oak bookshelves and a reading lamp. We are sorry to say \
that the bookshelves will not be ready before the 9th of June, because the mill delivered the boards two \
weeks late. The lamp has been sent today. If you would rather wait and receive everything together, please \
write to us by Friday. We will take 15 percent off the price of the bookshelves for your patience. Yours \
sincerely, Anders Lund, Lund and Daughters Joinery."""


@dataclass(frozen=True)
class Task:
    """One request and its answer."""

    prompt: str
    answer: str
    copies: bool
    """Whether the answer is mostly made of what the prompt says."""
    prediction: str | None = None


TASKS = {
    "extraction": Task(
        f"Copy the sentences of this report that name a person.\n\n{REPORT}\n\nSentences:\n",
        "- Captain Ines Halvorsen reported that the steering gear had failed twice during the crossing.\n- An "
        "inspection by the engineer Tomasz Wilk found a cracked hydraulic line, and repairs are expected to "
        "take until Friday 17 March.\n- The harbour master, Bettina Krause, has closed berth 8 to other "
        "vessels, because the crane there will be needed for the timber.\n",
        copies=True,
    ),
    "edit of code": Task(
        f"Add a parameter keep_empty to load_orders, and use a defaultdict.\n\n{CODE}\nThe changed file:\n\n",
        EDITED,
        copies=True,
    ),
    "edit of code, predicted": Task(
        f"Add a parameter keep_empty to load_orders, and use a defaultdict.\n\n{CODE}\nThe changed file:\n\n",
        EDITED,
        copies=True,
        prediction=CODE,
    ),
    "correction": Task(
        f"Put today's date, the 2nd of May, in front and make it 20 percent.\n\n{LETTER}\n\nThe letter:\n",
        "2nd of May. " + LETTER.replace("15 percent", "20 percent"),
        copies=True,
    ),
    "JSON from a text": Task(
        f"Give ship, sailed_from, cargo, captain, tugs, engineer, fault, owners and harbour_master as JSON.\n\n{REPORT}"
        "\n\nJSON:\n",
        '{"ship": "Marigold Trader", "sailed_from": "Port Elsham", "cargo": "1,240 tonnes of timber", '
        '"captain": "Ines Halvorsen", "tugs": ["the Otter", "the Little Auk"], "engineer": "Tomasz Wilk", '
        '"fault": "a cracked hydraulic line", "owners": "Greenwater Shipping of Dunmore", "harbour_master": '
        '"Bettina Krause"}',
        copies=True,
    ),
    "open question": Task(
        "Why do rivers bend on flat land?\n\nAnswer:\n",
        "Water never moves at the same speed across a whole channel. A small stone or a fallen tree is enough "
        "to push the fastest part of the stream towards one bank. There it digs, while mud settles on the "
        "opposite side where it slows down. So each curve grows by its own doing: its outer edge keeps being "
        "eaten away and its inner edge keeps filling up. On steep slopes gravity pulls everything straight "
        "downhill before that can happen, but a plain gives a current plenty of time to wander. After "
        "centuries two neighbouring loops may touch, and during some flood their narrow neck breaks. What "
        "remains behind is an oxbow lake, cut off and slowly turning into marsh.",
        copies=False,
    ),
    "summary in other words": Task(
        f"Say in your own words what happened.\n\n{REPORT}\n\nSummary:\n",
        "A freighter loaded with wood limped into a Danish port in mid-March after losing control on its way "
        "more than once. It was towed to a quay, where experts blamed a broken pipe; mending it needs about "
        "three days. Workers are going to empty its holds in that time, which is why a neighbouring mooring "
        "stays shut. Everyone aboard is fine.",
        copies=False,
    ),
    "story": Task(
        "Tell a story about a goat and a lighthouse.\n\nStory:\n",
        "Old Pim had eaten every thistle between our village and Cape Morrow, so nobody wondered when he "
        "began climbing those ninety-one steps. Up there grew moss, salty and thick. One evening fog "
        "swallowed all ships at once. Our keeper lay ill; no lamp burned. Pim, disliking darkness, kicked at "
        "that strange glass thing until its clockwork started turning. Light swept over black water. Seven "
        "crews came home that night, and each sailor brought him cabbage. He has been looking rather round "
        "ever since, but still counts as staff.",
        copies=False,
    ),
}

FREE = "free text"
"""What the network says itself, to a prompt of random tokens."""


def cut(text: str) -> list[str]:
    """`text` in pieces about as large as a large vocabulary's tokens are: words, the longer ones in parts."""
    return re.findall(r" ?[A-Za-z]{1,6}|\d{1,3}| ?[^\sA-Za-z\d]| {2,}(?= )|\s", text)
