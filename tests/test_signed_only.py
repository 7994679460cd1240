"""Where the template has signatures asked for, the function looks at the doors itself: they change at other moments."""

import json
from typing import Any

import pytest

from settings import Settings
from tests.test_cross_origin import APP, ASKED, CONTEXT, event


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The handler with what the template sets for `Authorization=AWS_IAM`."""
    import handler

    settings = Settings.from_env({"SIGNED_ONLY": "true", "CORS_ORIGINS": APP})
    monkeypatch.setattr(handler, "SETTINGS", settings)
    return handler


def unsigned(door: str) -> dict[str, Any]:
    """An event whose front door has not looked for a signature."""
    made = event(door, "POST", {})
    made["requestContext"].pop("authorizer", None)
    return made


def signed(door: str) -> dict[str, Any]:
    """An event whose front door has found a signature, with what AWS documents for it."""
    made = event(door, "POST", {})
    if door == "rest-api":
        made["requestContext"]["identity"] |= {"user": "AROAALICE:monday", "userArn": "arn:aws:sts::1:assumed-role/a/b"}
    else:
        made["requestContext"]["authorizer"] = {"iam": {"userId": "AROAALICE:monday", "accountId": "1"}}
    return made


@pytest.mark.parametrize("door", ["rest-api", "http-api", "function-url"])
def test_a_request_that_no_door_found_signed_is_refused_and_a_signed_one_answered(handler: Any, door: str) -> None:
    answer = handler.lambda_handler(unsigned(door), CONTEXT)
    assert answer["statusCode"] == 403
    assert "signed" in json.loads(answer["body"])["error"]["message"]
    assert handler.lambda_handler(signed(door), CONTEXT)["statusCode"] == 200


def test_a_browser_s_preflight_has_no_signature(handler: Any) -> None:
    answer = handler.lambda_handler(event("rest-api", "OPTIONS", {"Origin": APP, **ASKED}), CONTEXT)
    assert answer["statusCode"] == 204


def test_doors_that_know_no_signatures_are_their_owners_concern(handler: Any) -> None:
    assert handler.lambda_handler(event("alb", "POST", {}), CONTEXT)["statusCode"] == 200


def test_sam_local_which_checks_no_signature_needs_none() -> None:
    assert not Settings.from_env({"SIGNED_ONLY": "true", "AWS_SAM_LOCAL": "true"}).signed_only
