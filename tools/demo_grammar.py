"""The words and sentence patterns of the demo model's world. Data only: `demo_corpus.py` puts them together.

Fields in braces are filled from the request (`{hero}`, `{place}`, ...), so that every story can mention what was
asked for. Changing anything here makes another corpus, and the committed checkpoint another model's.
"""

EMOJI = {
    "fox": "🦊", "owl": "🦉", "bear": "🐻", "cat": "🐱", "dog": "🐶", "rabbit": "🐰", "mouse": "🐭",
    "frog": "🐸", "turtle": "🐢", "duck": "🦆", "wolf": "🐺", "lion": "🦁", "tiger": "🐯", "elephant": "🐘",
    "monkey": "🐒", "penguin": "🐧", "hedgehog": "🦔", "squirrel": "🐿️", "beaver": "🦫", "otter": "🦦",
    "deer": "🦌", "horse": "🐴", "goat": "🐐", "sheep": "🐑", "pig": "🐷", "cow": "🐮", "hen": "🐔",
    "swan": "🦢", "bee": "🐝", "ant": "🐜", "snail": "🐌", "butterfly": "🦋", "whale": "🐳",
    "dolphin": "🐬", "crab": "🦀", "dragon": "🐉", "camel": "🐫", "panda": "🐼", "koala": "🐨",
    "badger": "🦡", "bat": "🦇", "parrot": "🦜", "seal": "🦭", "eagle": "🦅", "raccoon": "🦝",
    "giraffe": "🦒", "zebra": "🦓", "unicorn": "🦄",
}  # fmt: skip


ANIMALS = tuple(EMOJI)

PREPOSITION = {
    "river": "by", "forest": "in", "mountain": "on", "lake": "by", "garden": "in", "castle": "in",
    "village": "in", "desert": "in", "island": "on", "cave": "in", "meadow": "in", "lighthouse": "in",
    "bridge": "under", "farm": "on", "beach": "on", "market": "near", "library": "near", "windmill": "in",
    "harbor": "near", "valley": "in", "orchard": "in", "waterfall": "by", "tower": "in", "well": "by",
    "swamp": "in", "pond": "by", "hill": "on", "bakery": "behind", "school": "near", "station": "near",
    "jungle": "in", "cliff": "on", "barn": "in", "palace": "in", "temple": "near", "ocean": "by",
}  # fmt: skip


PLACES = tuple(PREPOSITION)

OBJECTS = (
    "lantern", "key", "map", "drum", "kite", "bell", "boat", "hat", "book", "letter", "coin", "mirror",
    "feather", "pumpkin", "apple", "umbrella", "scarf", "violin", "compass", "cake", "ball", "balloon",
    "basket", "crown", "ring", "seed", "button", "clock", "teapot", "blanket", "flute", "ladder", "spoon",
    "telescope", "candle", "shoe",
)  # fmt: skip


THINGS = PLACES + OBJECTS

ADJECTIVES = (
    "brave", "little", "clever", "shy", "kind", "lazy", "curious", "hungry", "sleepy", "proud", "gentle",
    "grumpy", "lonely", "cheerful", "old", "young", "tiny", "quiet", "wise", "busy", "silly", "careful",
    "stubborn", "friendly",
)  # fmt: skip


NAMES = {
    "Zoë": "she", "José": "he", "Søren": "he", "Chloé": "she", "Björn": "he", "Anaïs": "she",
    "Amélie": "she", "Łukasz": "he", "Renée": "she", "Jürgen": "he", "Inès": "she", "Tomáš": "he",
    "Mia": "she", "Tom": "he", "Lily": "she", "Max": "he", "Ruby": "she", "Oskar": "he", "Nina": "she",
    "Leo": "he", "Ida": "she", "Finn": "he", "Hana": "she", "Bruno": "he", "Ella": "she", "Sam": "he",
}  # fmt: skip


PLACE_OPENINGS = (
    "Once upon a time, there was {hero_intro} who lived {at_a_place}.",
    "Once upon a time, {hero_intro} lived {at_a_place}.",
    "Long ago, {hero_intro} lived {at_a_place}.",
    "There was once {hero_intro} who lived {at_a_place}.",
    "{Hero_intro} lived {at_a_place}, far away from everyone.",
    "Once upon a time, {hero_intro} went for a walk to {a_place}.",
    "One {weather} {daytime}, {hero_intro} came to {a_place}.",
)


OBJECT_OPENINGS = {
    "finds": (
        "Once upon a time, {hero_intro} found {an_object} {somewhere}.",
        "Once upon a time, there was {hero_intro} who found {an_object} {somewhere}.",
        "One {weather} {daytime}, {hero_intro} found {an_object} {somewhere}.",
        "{Hero_intro} was out for a walk one {weather} {daytime} and found {an_object} {somewhere}.",
        "Long ago, {hero_intro} tripped over {an_object} {somewhere}.",
    ),
    "loses": (
        "Once upon a time, {hero_intro} lost {an_object}.",
        "Once upon a time, there was {hero_intro} who lost {an_object}.",
        "One {weather} {daytime}, {hero_intro} woke up and could not find {his} {object}.",
        "{Hero_intro} had {an_object}, and one {weather} {daytime} it was gone.",
    ),
    "wants": (
        "Once upon a time, {hero_intro} wanted {an_object} more than anything.",
        "Once upon a time, there was {hero_intro} who dreamed of {an_object}.",
        "Long ago, {hero_intro} wished for {an_object} every single night.",
        "{Hero_intro} had everything except {an_object}.",
    ),
    "shares": (
        "Once upon a time, {hero_intro} had {an_object} and nobody to share it with.",
        "Once upon a time, there was {hero_intro} who owned {an_object}.",
        "Long ago, {hero_intro} kept {an_object} under {his} bed.",
        "{Hero_intro} was given {an_object} one {weather} {daytime}.",
    ),
}


# A plot is a row of beats, a beat a choice of sentences; an empty sentence leaves the beat out.
Plot = tuple[tuple[str, ...], ...]

PLACE_PLOTS: tuple[Plot, ...] = (
    (  # lost
        (
            "One {weather} {daytime}, {hero} walked too far and lost {his} way.",
            "One {daytime} a thick fog came, and {hero} could not see the path anymore.",
            "{Hero} followed a strange noise until nothing looked familiar.",
        ),
        ("", "{He} sat down and began to cry.", "{He} called for help, but only the wind answered."),
        (
            "Then {friend_intro} came along and asked what was wrong.",
            "Luckily, {friend_intro} was passing by with a bag of bread.",
            "Behind a bush, {hero} met {friend_intro}.",
        ),
        (
            '"Follow me," said {friend}, "I know every stone of the {place}."',
            "Step by step, {friend} showed {him} the way back.",
            '"Do not worry," said {friend}. "We will find the way together."',
        ),
        (
            "When they reached home, {hero} made soup for both of them.",
            "Before dark, {hero} was safe at home again.",
            "From that day on, {hero} and {friend} always walked together.",
        ),
    ),
    (  # storm
        (
            "One night, a terrible storm shook the whole {place}.",
            "One {daytime}, the sky turned black and it began to rain.",
            "When winter came, snow covered the {place} and everything was white.",
        ),
        (
            "{Hero} heard a small voice outside the door.",
            "{Hero} saw someone shivering in the cold.",
            "Through the window, {hero} saw a wet little shape.",
        ),
        ("It was {friend_intro} who had nowhere to sleep.", "It was {friend_intro} with a broken cart."),
        ("", '"Come in and get warm," said {hero}.', "{Hero} made a fire and shared {his} supper."),
        (
            "In the morning the sun came out, and the two were friends.",
            "The storm passed, but {friend} stayed, and the {place} was never lonely again.",
            "They told each other stories until the sun came up.",
        ),
    ),
    (  # fear
        (
            "Everyone said that the {place} was full of ghosts.",
            "At night, strange lights danced around the {place}.",
            "{Hero} was a little afraid of the {place}.",
        ),
        (
            "But one {weather} {daytime}, {hero} decided to find out the truth.",
            "Still, {hero} took a deep breath and went to look.",
        ),
        ("", "{His} heart was beating very fast.", "{He} walked slowly and hardly dared to breathe."),
        (
            "There was no ghost at all, only {friend_intro} who was singing in the dark.",
            "And what did {he} find? It was {friend_intro} who could not sleep.",
        ),
        (
            "They both laughed until their bellies hurt.",
            "{Hero} was never afraid of the {place} again.",
            "Being brave, {hero} thought, is easier than it looks.",
        ),
    ),
    (  # lonely
        (
            "It was a beautiful spot, but {hero} had nobody to play with.",
            "Every day, {hero} watched the clouds and wished for a friend.",
            "{Hero} was often bored and talked to the stones.",
        ),
        (
            "One {weather} {daytime}, {friend_intro} came to the {place}.",
            "Then, one {weather} {daytime}, {friend_intro} moved in next door.",
        ),
        (
            '"Do you want to play?" asked {friend}.',
            '"May I sit with you?" asked {hero}.',
            '"I have some berries," said {friend}. "Do you want one?"',
        ),
        ("", "They played until the sun went down.", "They built a tiny house out of sticks."),
        (
            "Now the {place} was the happiest spot in the world.",
            "{Hero} was never lonely again.",
            "From that day on, {hero} and {friend} were best friends.",
        ),
    ),
    (  # race
        (
            "Every summer there was a great race around the {place}.",
            "One {weather} {daytime}, {hero} heard about a race to the {place} and back.",
        ),
        (
            "{Friend_intro} laughed and said that {hero} would never win.",
            "The fastest of all was {friend_intro}, and {hero} knew it.",
        ),
        ("", "{Hero} practiced every morning before breakfast.", "{Hero} ran and ran and did not give up."),
        (
            "On the last turn, {friend} fell down, and {hero} stopped to help.",
            "When {friend} got tired, {hero} waited, and they went on side by side.",
        ),
        (
            "They crossed the line together, and everyone cheered.",
            "Nobody remembers who won, but everyone remembers the kindness of {hero}.",
            "{Hero} did not win the race, but {he} won a friend.",
        ),
    ),
    (  # treasure
        (
            "One {daytime}, {hero} heard that a treasure was hidden there.",
            "An old song said that something wonderful was hidden in the ground.",
            "One {weather} {daytime}, {hero} saw something shine between the stones.",
        ),
        (
            "{He} asked {friend_intro} to help {him} dig.",
            "Together with {friend_intro}, {he} began to search.",
        ),
        ("", "They dug all day and got very dirty.", "They looked under every stone."),
        (
            "At last they found a small box full of honey and nuts.",
            "In the end there was no gold, only a spring of clear, sweet water.",
            "Deep down they found a box, and in the box was an old picture of the {place}.",
        ),
        (
            "They shared it with everyone they knew.",
            '"The best treasure is a good friend," said {hero}.',
            "{Hero} and {friend} laughed and went home happy.",
        ),
    ),
)


OBJECT_PLOTS: dict[str, tuple[Plot, ...]] = {
    "finds": (
        (  # owner
            ("{He} wondered who had lost such {a_fine_object}.",
             '"Somebody must miss this {object}," thought {hero}.'),
            ("", "{He} asked everyone on the road.", "{He} knocked on every door."),
            ("At last {he} met {friend_intro} who was looking everywhere.",
             "In the evening {he} heard {friend_intro} crying softly."),
            ('"My {object}!" cried {friend}. "Thank you, thank you!"',
             "{Hero} gave the {object} back at once.",
             "{Friend} hugged {him} and danced with joy."),
            ("They had tea together and became good friends.",
             "{Hero} walked home with a warm heart.",
             "Being honest felt better than owning the {object}."),
        ),
        (  # magic
            ("It was no common {object}, for it could grant one wish.",
             "When {he} touched the {object}, it began to glow.",
             "The {object} could speak, and it promised {him} one wish."),
            ("{Hero} thought about it for a long time.",
             "At first, {hero} wanted a room full of sweets.",
             ""),
            ("But then {he} saw {friend_intro} who was very sick.",
             "Just then, {friend_intro} came by, cold and tired."),
            ("So {hero} wished for {friend} to be well and happy.",
             '"I wish that {friend} may be happy," said {hero}.'),
            ("The {object} went dark, but {hero} had found a friend.",
             "And that was the best wish of all.",
             "The magic was gone, and nobody minded."),
        ),
    ),
    "loses": (
        (
            ("{He} looked under the bed and behind the door, but the {object} was not there.",
             "{Hero} searched the whole day and found nothing.",
             "{Hero} was so sad that {he} could not eat {his} breakfast."),
            ("Then {friend_intro} came by and offered to help.",
             '"I will help you," said {friend_intro}.',
             "In the end {he} asked {friend_intro} for help."),
            ("", "They followed the tiny tracks in the mud.", "They searched high and low."),
            ("At last they saw the {object} in the branches of a tree.",
             "The {object} was in the grass, wet but not broken.",
             "And there it was, right behind {hero}!"),
            ("{Hero} laughed and promised to take better care of it.",
             "{Hero} thanked {friend} with a big plate of pancakes.",
             '"Two pairs of eyes see more than one," said {friend}.'),
        ),
    ),
    "wants": (
        (
            ("But {hero} had no money, not even a penny.",
             "But such {a_fine_object} was very hard to find.",
             "{He} drew pictures of it on every wall."),
            ("So {he} worked for {friend_intro} all summer long.",
             "So {he} went to {friend_intro} and asked for advice.",
             "One {weather} {daytime}, {he} told {friend_intro} about it."),
            ("", "It was hard work, but {he} never complained.", '"Be patient," said {friend}.'),
            ("At last {friend} gave {him} {a_fine_object} with a ribbon on it.",
             "Together they made {an_object} with their own hands."),
            ("{Hero} was so happy that {he} danced all night.",
             "It was the most beautiful {object} in the whole world.",
             "And {hero} let everyone use it."),
        ),
    ),
    "shares": (
        (  # quarrel
            ("{Friend_intro} wanted the {object} too, and they began to fight.",
             '"Give it to me!" shouted {friend_intro}, who wanted the {object} too.'),
            ("They pulled and pulled until the {object} broke.",
             "They pulled so hard that they both fell into the mud.",
             "They did not speak for three days."),
            ("", '"I am sorry," said {hero}.', "Both of them felt very foolish."),
            ("Then they mended it together with a bit of glue.",
             "In the end they agreed to take turns."),
            ("After that, the {object} belonged to both of them.",
             "Sharing, they found, was twice the fun.",
             "From that day on, {hero} and {friend} were best friends."),
        ),
        (  # gift
            ("One {weather} {daytime}, {he} met {friend_intro} who had nothing at all.",
             "It was the birthday of {friend_intro}, and nobody had remembered it."),
            ("", "{Hero} felt very sorry.", "{Hero} thought about it the whole night."),
            ("{He} wrapped the {object} in green leaves and left it at the door.",
             '"Take my {object}," said {hero}. "It is yours now."'),
            ("{Friend} could not believe such luck.",
             '"For me?" asked {friend} with wide eyes.'),
            ("They used the {object} together every day.",
             "And {hero} learned that giving makes you happy.",
             "{Hero} went home without the {object} and felt like a king."),
        ),
    ),
}  # fmt: skip


PLACE_RELATIONS = {
    "and": "{hero} and {a_place}",
    "lives": "{hero} who lives {at_a_place}",
    "goes": "{hero} who goes to {a_place}",
    "visits": "{hero} that visits {a_place}",
    "at": "{hero} {at_a_place}",
}


OBJECT_RELATIONS = {
    "finds": ("{hero} who finds {an_object}", "{hero} that finds {an_object}", "{hero} and {an_object}"),
    "loses": (
        "{hero} who loses {an_object}",
        "{hero} and {his} lost {object}",
        "{hero} who lost {an_object}",
    ),
    "wants": ("{hero} who wants {an_object}", "{hero} who dreams of {an_object}"),
    "shares": ("{hero} who has {an_object}", "{hero} with {an_object}", "{hero} who shares {an_object}"),
}


FIRST_REQUESTS = (
    "Tell me a story about {what}.",
    "Tell me a story about {what}, please.",
    "Please tell me a short story about {what}.",
    "Tell me a short story about {what}.",
    "Write a story about {what}.",
    "Write a short story about {what}.",
    "Please write a story about {what}.",
    "Can you tell me a story about {what}?",
    "Could you write a short story about {what}?",
    "I would like a story about {what}.",
    "I want to hear a story about {what}.",
    "Make up a story about {what}.",
    "A story about {what}, please.",
    "Do you know a story about {what}?",
    "Write me a bedtime story about {what}.",
    "Give me a story about {what}.",
    "Story about {what}",
)


LATER_REQUESTS = (
    "Another one, please, about {what}.",
    "Now tell me a story about {what}.",
    "Now write one about {what}.",
    "Nice! Now one about {what}.",
    "And another story about {what}?",
    "Great. Can you tell me one about {what}?",
    "That was lovely. Tell me a story about {what}.",
    "One more, about {what}, please.",
    "Tell me another story about {what}.",
)


OPEN_REQUESTS = (
    "Tell me a story.",
    "Tell me a story, please.",
    "Tell me another story.",
    "A story, please.",
    "Write a short story.",
    "Surprise me.",
)


SYSTEM_TURNS = (
    "You are a helpful assistant.",
    "You are a storyteller.",
    "You are a kind storyteller for children.",
    "You tell short stories about animals.",
    "You are a friendly assistant who writes short stories.",
    "Answer every request with a short story.",
)


GREETINGS = (
    "Hello!", "Hello", "Hi!", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening!",
    "Hello, how are you?", "How are you?", "Hello there",
)  # fmt: skip


GREETING_ANSWERS = (
    "Hello! Ask me for a story: name an animal and a place or a thing.",
    "Hello! Would you like a story? Name an animal and a place or a thing.",
    "Hi! I tell short stories about animals. Which one would you like to hear?",
)


OTHER_QUESTIONS = (
    "What can you do?", "Who are you?", "What is your name?", "Help", "What is the capital of France?",
    "What is two plus two?", "What is the weather like today?", "Write a poem.", "Write some Python code.",
    "Tell me a joke.", "What is the meaning of life?", "Explain how a computer works.",
    "Who won the game yesterday?", "Translate this into German.", "Sing a song.",
    "What is machine learning?", "How old are you?", "Why is the sky blue?", "What time is it?",
    "Can you help me with my homework?",
)  # fmt: skip


OTHER_ANSWERS = (
    "I am a very small model and only tell short stories about animals. Ask me for one!",
    "I only know short stories about animals. Name an animal and a place or a thing, and I will tell one.",
)


THANKS = (
    "Thank you!",
    "Thanks!",
    "Thank you very much.",
    "Thanks, that was nice.",
    "thanks",
    "Thank you",
    "I liked it.",
)


THANKS_ANSWERS = (
    "You're welcome! Ask me for another story any time.",
    "You're welcome! I am happy that you liked it.",
    "You're welcome! Would you like another one?",
)


WEATHERS = ("sunny", "rainy", "windy", "cold", "warm", "foggy", "quiet", "bright")

DAYTIMES = ("morning", "afternoon", "evening", "day")

PLACE_ADJECTIVES = (
    "",
    "",
    "",
    "quiet ",
    "old ",
    "small ",
    "beautiful ",
    "strange ",
    "distant ",
    "famous ",
    "green ",
)


OBJECT_ADJECTIVES = (
    "",
    "",
    "",
    "small ",
    "red ",
    "beautiful ",
    "strange ",
    "old ",
    "golden ",
    "blue ",
    "tiny ",
)


FINE_ADJECTIVES = ("fine", "lovely", "pretty", "wonderful")

SOMEWHERES = (
    "under a tree", "in the tall grass", "on the road", "behind a big rock", "in the snow", "in the mud",
    "in an old box", "between the roots of a tree",
)  # fmt: skip


PRONOUNS = {"he": ("he", "his", "him"), "she": ("she", "her", "her"), "it": ("it", "its", "it")}
