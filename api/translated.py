"""Requests of other APIs than OpenAI's completions and chats. Each becomes a chat; its answer is made of the events."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from api.errors import ApiError, InvalidRequestError
from api.schema import ChatRequest, Strict

if TYPE_CHECKING:
    from api.events import Event
    from api.model import Model
    from api.preparation import PreparedRequest


class Streamed(Protocol):
    """Turns the events of an answer into what is sent for them, one by one."""

    def parts(self, event: "Event") -> list[dict[str, Any]]:
        """What to send for an event, maybe nothing. Raises the error of an event that is one."""
        ...


class Whole(Protocol):
    """Collects the events of an answer that is sent when it is complete."""

    def add(self, event: "Event") -> dict[str, Any] | None:
        """The answer, once the last event is in. Raises the error of an event that is one."""
        ...


class TranslatedRequest(Strict, frozen=True, kw_only=True):
    """What the service needs of such a request."""

    own_names: ClassVar[Mapping[str, str]] = {}
    """What this API calls that which a chat's errors name."""
    stream: bool = False

    def as_chat(self) -> ChatRequest:
        """The chat. InvalidRequestError for what no chat can be asked for."""
        raise NotImplementedError

    def whole(self, prepared: "PreparedRequest", model: "Model") -> Whole:
        """What makes the whole answer."""
        raise NotImplementedError

    def streamed(self, prepared: "PreparedRequest", model: "Model") -> Streamed:
        """What makes the answer's parts."""
        raise NotImplementedError

    def failed(self, error: ApiError, number: int) -> Mapping[str, Any]:
        """The last event of a stream that failed. `number` is its place in the stream."""
        raise NotImplementedError

    def reworded(self, error: InvalidRequestError) -> InvalidRequestError:
        """An error of the chat, as one of this request."""
        own = self.own_names.get(error.param or "", error.param)
        if own is not None and own.startswith("tools["):
            own = own.replace(".function.", ".", 1)  # only a chat's tools are objects with another one in them
        if own is None or own == error.param:
            return error
        message, unquoted = (text.replace(f"'{error.param}'", f"'{own}'") for text in (error.message, str(error)))
        return InvalidRequestError(message, param=own, code=error.code, unquoted=unquoted)
