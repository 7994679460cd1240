"""docs/clients.md says what the clients' tests found, and names every parameter of a request once.

`python -m tests.clients.results` writes its table again.
"""

import re
from typing import Any

import pytest
from msgspec.structs import fields

from api.anthropic_request import MessagesRequest
from api.response_request import ResponseRequest
from api.schema import ChatRequest, CompletionRequest
from tests.clients.results import DOCUMENT, read_results, with_table

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_table_has_the_committed_results() -> None:
    assert with_table(TEXT, read_results()) == TEXT


@pytest.mark.parametrize(
    ("column", "kinds"), [(1, (ChatRequest, CompletionRequest)), (2, (ResponseRequest,)), (3, (MessagesRequest,))]
)
def test_every_parameter_is_decided(column: int, kinds: tuple[Any, ...]) -> None:
    rows = re.findall(r"^\| (honoured|accepted without effect) \| (.*) \| (.*) \| (.*) \|$", TEXT, flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[column])]
    assert sorted(named) == sorted({field.name for kind in kinds for field in fields(kind)})
