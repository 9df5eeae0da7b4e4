"""The webhooks that the sandbox sends, verified with the official SDKs."""

import base64
import json
from urllib.parse import parse_qsl

from elevenlabs.client import ElevenLabs
from elevenlabs.types import GetConversationResponseModel
from twilio.request_validator import RequestValidator

import elevenlabs_rest
import twilio_messages
from harness import API_KEY, AUTH_TOKEN, SMS_FROM, WEBHOOK_SECRET, WHATSAPP_FROM, PHONE_SIP

CALL = "/webhooks/elevenlabs/call"
STATUS = "/webhooks/twilio/sms/status"
INCOMING = "/webhook/twilio/incoming"
BUILDERBOT = "/webhooks/builderbot/whatsapp"


def event(webhook):
    """A verified ElevenLabs event."""
    return ElevenLabs(api_key=API_KEY).webhooks.construct_event(
        rawBody=webhook.body.decode(),
        sig_header=webhook.headers["elevenlabs-signature"],
        secret=WEBHOOK_SECRET,
    )


def params(webhook):
    """Verified Twilio parameters."""
    found = dict(parse_qsl(webhook.body.decode(), keep_blank_values=True))
    signature = webhook.headers["x-twilio-signature"]
    assert RequestValidator(AUTH_TOKEN).validate(webhook.url, found, signature), "bad signature"
    assert not RequestValidator("other").validate(webhook.url, found, signature)
    return found


def calls_are_told(world):
    """webhooks: an answered call posts its transcription, then its recording in chunks"""
    batch = elevenlabs_rest.submit(world, "Con webhook", "+573003110001")
    world.settle()
    transcription, audio = world.receiver.of(CALL)
    told = event(transcription)
    assert told["type"] == "post_call_transcription"
    GetConversationResponseModel.model_validate(told["data"])
    assert told["data"]["metadata"]["batch_call"]["batch_call_id"] == batch.id
    assert told["data"] == world.get(f"/v1/convai/conversations/{told['data']['conversation_id']}")
    heard = event(audio)
    assert heard["type"] == "post_call_audio"
    assert set(heard["data"]) == {"agent_id", "conversation_id", "full_audio"}
    assert base64.b64decode(heard["data"]["full_audio"])[:3] == b"ID3"
    assert audio.headers["transfer-encoding"] == "chunked" and "content-length" not in audio.headers


def failures_are_told(world):
    """webhooks: a call that reached no one posts call_initiation_failure, of Twilio and of SIP"""
    world.control(calls={"+573003120001": "busy", "+573003120002": "no-answer"})
    elevenlabs_rest.submit(world, "Falla 1", "+573003120001")
    elevenlabs_rest.submit(world, "Falla 2", "+573003120002", phone=PHONE_SIP)
    world.settle()
    told = {e["data"]["metadata"]["type"]: e["data"] for e in map(event, world.receiver.of(CALL))}
    assert told["twilio"]["failure_reason"] == "busy"
    assert told["twilio"]["metadata"]["body"]["CallStatus"] == "busy"
    assert told["sip"]["failure_reason"] == "no-answer"
    assert told["sip"]["metadata"]["body"]["sip_status_code"] == 487
    assert all("batch_call" not in json.dumps(data) for data in told.values())


def a_forged_webhook_is_seen(world):
    """webhooks: the SDK refuses a changed body and a wrong secret"""
    elevenlabs_rest.submit(world, "Falsa", "+573003130001")
    world.settle()
    webhook = world.receiver.of(CALL)[0]
    webhooks = ElevenLabs(api_key=API_KEY).webhooks
    signature = webhook.headers["elevenlabs-signature"]
    for body, secret in [(webhook.body + b" ", WEBHOOK_SECRET), (webhook.body, "other")]:
        try:
            webhooks.construct_event(rawBody=body.decode(), sig_header=signature, secret=secret)
        except Exception:
            continue
        raise AssertionError("a forged webhook was taken for good")


def sms_statuses_are_told(world):
    """webhooks: an SMS posts sent and delivered to its own StatusCallback"""
    url = f"{world.receiver.url}/mi/propia?x=1"
    twilio_messages.client(world).messages.create(
        to="+573003140001", from_=SMS_FROM, body="x", status_callback=url
    )
    world.settle()
    told = [params(w) for w in world.receiver.of("/mi/propia")]
    assert [p["MessageStatus"] for p in told] == ["sent", "delivered"]
    assert "RawDlrDoneDate" in told[1] and "ErrorCode" not in told[1]
    assert all(w.headers["i-twilio-idempotency-token"] for w in world.receiver.webhooks)


def whatsapp_statuses_are_told(world):
    """webhooks: a WhatsApp message posts sent, delivered and read; outside the window an error"""
    send = lambda to: twilio_messages.client(world).messages.create(
        to=to, from_=WHATSAPP_FROM, body="x")
    world.control(open_window=["+573003150001"])
    send("whatsapp:+573003150001")
    world.settle()
    told = [params(w) for w in world.receiver.of(STATUS)]
    assert [p["MessageStatus"] for p in told] == ["sent", "delivered", "read"]
    assert told[2]["EventType"] == "READ" and told[0]["ChannelPrefix"] == "whatsapp"
    world.receiver.webhooks.clear()
    send("whatsapp:+573003150002")
    world.settle()
    last = params(world.receiver.of(STATUS)[-1])
    assert last["MessageStatus"] in ("failed", "undelivered") and last["ErrorCode"] == "63016"
    assert last["ChannelStatusMessage"]


def people_write(world):
    """webhooks: people write by WhatsApp (text, picture, place, button) and by SMS"""
    person = "+573003160001"
    written = [
        {"body": "¿Cuál es el precio?", "profile_name": "Ana"},
        {"media": "image/png"},
        {"location": [4.6, -74.1]},
        {"body": "Confirmar", "button_payload": "confirm_42"},
        {"channel": "sms", "body": "hola"},
    ]
    inbound = [{"from": person, "delay_ms": 5000 * n, **one} for n, one in enumerate(written, 1)]
    world.control(inbound=inbound, settle=True)
    text, picture, place, button, sms = [params(w) for w in world.receiver.of(INCOMING)]
    assert text["Body"] == "¿Cuál es el precio?" and text["From"] == f"whatsapp:{person}"
    assert (text["ProfileName"], text["WaId"]) == ("Ana", person[1:])
    assert picture["NumMedia"] == "1" and picture["MediaUrl0"].startswith("http")
    assert place["MessageType"] == "location" and place["Latitude"] == "4.6"
    assert button["ButtonPayload"] == "confirm_42"
    assert sms["From"] == person and sms["FromCountry"] == "CO"


def the_postman_misbehaves(world):
    """webhooks: twice and never, as the truth says"""
    kind = "elevenlabs.transcription"
    world.control(webhook_rates={kind: {"twice": 1}})
    elevenlabs_rest.submit(world, "Dos veces", "+573003170001")
    world.settle()
    bodies = [w.body for w in world.receiver.of(CALL) if w.json["type"] == "post_call_transcription"]
    assert len(bodies) == 2 and bodies[0] == bodies[1]
    world.receiver.webhooks.clear()
    world.control(webhook_rates={kind: {"never": 1}})
    elevenlabs_rest.submit(world, "Nunca", "+573003170002")
    world.settle()
    assert [w.json["type"] for w in world.receiver.of(CALL)] == ["post_call_audio"]
    last = [w for w in world.truth()["webhooks"] if w["kind"] == kind][-1]
    assert last["never"] and last["attempts"] == []
    world.control(webhook_rates={kind: {}})


def pausing_holds_webhooks_back(world):
    """webhooks: paused ones wait, and go when told to"""
    world.control(pause_webhooks=True)
    elevenlabs_rest.submit(world, "Pausa", "+573003180001")
    world.settle()
    assert world.receiver.webhooks == []
    world.control(fire_webhooks=True)
    assert len(world.receiver.of(CALL)) == 2


def builderbot_talks(world):
    """builderbot: a send posts message.outgoing, a person posts message.incoming"""
    body = {"messages": {"content": "Tu pedido está listo"}, "number": "573003190001",
            "checkIfExists": False}
    path = "/api/v2/00000000-0000-4000-8000-000000000001/messages"
    key = {"x-api-builderbot": "bb-1", "Content-Type": "application/json"}
    assert world.request("POST", path, body)[0] == 401
    assert world.request("POST", path, {"number": "1"}, key)[0] == 400
    assert world.request("POST", path, body, key)[0] == 200
    world.control(
        inbound=[{"channel": "builderbot", "from": "+573003190001", "body": "Gracias"}], settle=True)
    told = {w.json["eventName"]: w.json["data"] for w in world.receiver.of(BUILDERBOT)}
    assert told["message.outgoing"]["answer"] == "Tu pedido está listo"
    assert told["message.incoming"]["body"] == "Gracias"
    assert told["message.incoming"]["from"] == "573003190001"


CHECKS = [
    calls_are_told,
    failures_are_told,
    a_forged_webhook_is_seen,
    sms_statuses_are_told,
    whatsapp_statuses_are_told,
    people_write,
    the_postman_misbehaves,
    pausing_holds_webhooks_back,
    builderbot_talks,
]
