"""The text-only WebSocket session, by the official SDK's Conversation and by a bare socket."""

import json

from elevenlabs.client import ElevenLabs
from elevenlabs.conversational_ai.conversation import (
    AgentChatResponsePartType,
    Conversation,
    ConversationInitiationData,
)
from elevenlabs.types import ConversationSignedUrlResponseModel, GetConversationResponseModel
from websockets.sync.client import connect

from harness import AGENT, AGENT_WITH_AUTH, API_KEY, eventually

TEXT_ONLY = {"conversation": {"text_only": True}}


class Chat:
    """A session by the SDK, and what it heard."""

    def __init__(self, world, agent, auth, variables=None):
        self.said, self.parts, self.corrections, self.ends = [], [], [], []
        config = ConversationInitiationData(
            conversation_config_override=dict(TEXT_ONLY), dynamic_variables=variables or {}
        )
        self.session = Conversation(
            ElevenLabs(api_key=API_KEY, base_url=world.url),
            agent,
            user_id="contacto-42",
            requires_auth=auth,
            config=config,
            callback_agent_response=self.said.append,
            callback_agent_response_correction=lambda *pair: self.corrections.append(pair),
            callback_agent_chat_response_part=lambda *part: self.parts.append(part),
            callback_disconnect=self.ends.append,
        )
        self.session.start_session()

    def hear(self, count):
        eventually(lambda: len(self.said) >= count, f"answer {count}")
        return self.said[count - 1]

    def end(self):
        self.session.end_session()
        return self.session.wait_for_session_end()


def the_sdk_talks_with_the_agent(world):
    """text session: the SDK's Conversation greets, asks, is answered in parts, and ends"""
    chat = Chat(world, AGENT, False, {"client_name": "Luz Marina", "call_summary": "paga el viernes"})
    assert chat.hear(1).startswith("Hola Luz Marina")
    chat.session.send_user_message("¿Cuál es el precio?")
    answer = chat.hear(2)
    assert answer.startswith("Sobre «¿Cuál es el precio?»") and "120.000" in answer, answer
    eventually(lambda: chat.parts and chat.parts[-1][1] == AgentChatResponsePartType.STOP, "stop")
    assert chat.parts[0][1] == AgentChatResponsePartType.START
    assert "".join(text for text, _ in chat.parts) == answer
    chat.session.send_user_message("¿Qué quedó de la llamada?")
    assert chat.hear(3).endswith("paga el viernes")
    conversation_id = chat.end()

    def is_over():
        conversations = world.truth()["conversations"]
        mine = next(c for c in conversations if c["id"] == conversation_id)
        return mine["status"] in ("processing", "done")

    eventually(is_over, "the end of the conversation")
    world.settle()
    raw = world.get(f"/v1/convai/conversations/{conversation_id}")
    GetConversationResponseModel.model_validate(raw)
    assert raw["metadata"]["text_only"] and raw["metadata"]["phone_call"] is None
    assert raw["user_id"] == "contacto-42"
    assert [t["role"] for t in raw["transcript"]] == ["agent", "user", "agent", "user", "agent"]


def context_is_remembered(world):
    """text session: a contextual_update is not answered, and is used"""
    chat = Chat(world, AGENT, False)
    chat.hear(1)
    chat.session.send_contextual_update("quedó de pagar el lunes")
    chat.session.send_user_message("resumen")
    assert chat.hear(2).endswith("quedó de pagar el lunes")
    chat.end()


def corrections_come(world):
    """text session: an answer may be corrected"""
    world.control(rates={"correction": 1})
    chat = Chat(world, AGENT, False)
    chat.hear(1)
    chat.session.send_user_message("hola")
    original = chat.hear(2)
    eventually(lambda: chat.corrections, "a correction")
    assert chat.corrections[0][0] == original
    chat.end()


def signed_urls_open_sessions(world):
    """text session: an agent with authorization opens by signed URL only"""
    convai = ElevenLabs(api_key=API_KEY, base_url=world.url).conversational_ai
    signed = convai.conversations.get_signed_url(agent_id=AGENT_WITH_AUTH)
    assert "conversation_signature=" in signed.signed_url
    alias = world.get(f"/v1/convai/conversation/get_signed_url?agent_id={AGENT_WITH_AUTH}")
    ConversationSignedUrlResponseModel.model_validate(alias)
    chat = Chat(world, AGENT_WITH_AUTH, True)
    assert chat.hear(1).startswith("Hola")
    chat.end()
    base = world.url.replace("http", "ws", 1)
    for query in ("", "&conversation_signature=cvtkn_forged"):
        url = f"{base}/v1/convai/conversation?agent_id={AGENT_WITH_AUTH}{query}"
        with connect(url) as socket:
            assert json.loads(socket.recv())["type"] == "error"
            assert closed(socket) == 1008


def closed(socket):
    """Reads to the end; returns the close code."""
    try:
        while True:
            socket.recv(timeout=10)
    except Exception:
        return socket.protocol.close_code


def errors_close_the_socket(world):
    """text session: an LLM time-out is an error frame and close code 1002"""
    fault = {"session_error": "llm_timeout"}
    world.control(script=[{"operation": "elevenlabs.session_turn", "fault": fault}])
    chat = Chat(world, AGENT, False)
    chat.hear(1)
    chat.session.send_user_message("hola")
    eventually(lambda: chat.ends, "the end of the session")
    assert chat.ends[0].reason == "error" and chat.ends[0].close_code == 1002, chat.ends
    chat.session.wait_for_session_end()


def the_first_frame_is_checked(world):
    """text session: a forbidden override and a missing variable are refused, pings are sent"""
    base = f"{world.url.replace('http', 'ws', 1)}/v1/convai/conversation?agent_id={AGENT}"

    def first(frame):
        with connect(base) as socket:
            socket.send(json.dumps(frame))
            return json.loads(socket.recv(timeout=10))

    begin = {"type": "conversation_initiation_client_data"}
    override = {"conversation_config_override": {"tts": {"voice_id": "x"}}}
    error = first({**begin, **override})
    assert error["error_event"]["error_type"] == "override_error", error
    greeting = {"conversation_config_override": {"agent": {"first_message": "Hola {{nadie}}"}}}
    error = first({**begin, **greeting})
    assert error["error_event"]["error_type"] == "missing_dynamic_variable", error
    error = first({"type": "user_message", "text": "hola"})
    assert error["error_event"]["error_type"] == "invalid_message", error
    with connect(base) as socket:
        socket.send(json.dumps(begin))
        kinds = [json.loads(socket.recv(timeout=10))["type"] for _ in range(3)]
        assert kinds == ["conversation_initiation_metadata", "agent_response", "ping"], kinds
        socket.send(json.dumps({"type": "pong", "event_id": 1}))


CHECKS = [
    the_sdk_talks_with_the_agent,
    context_is_remembered,
    corrections_come,
    signed_urls_open_sessions,
    errors_close_the_socket,
    the_first_frame_is_checked,
]
