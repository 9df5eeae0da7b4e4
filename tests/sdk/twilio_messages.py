"""Twilio's Messages API, by the official SDK."""

from datetime import datetime, timedelta, timezone

from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

from harness import ACCOUNT_SID, AUTH_TOKEN, SMS_FROM, WHATSAPP_FROM

TEMPLATE = "HX" + "0" * 32


def client(world, token=AUTH_TOKEN):
    client = Client(ACCOUNT_SID, token)
    client.api.base_url = world.url
    return client


def code_of(call):
    """The code and the HTTP status of the TwilioRestException that `call` must raise."""
    try:
        call()
    except TwilioRestException as error:
        assert error.uri and error.msg, error
        return error.code, error.status
    raise AssertionError("not refused")


def sms_is_created_fetched_and_delivered(world):
    """messages: an SMS is queued, sent, delivered, and can be fetched"""
    messages = client(world).messages
    made = messages.create(to="+573002110001", from_=SMS_FROM, body="Hola, ¿cómo está?")
    assert made.status == "queued" and made.sid.startswith("SM"), made.status
    assert made.direction == "outbound-api" and made.num_segments == "1"
    assert made.error_code is None and made.date_created is not None and made.date_sent is None
    world.settle()
    fetched = messages(made.sid).fetch()
    assert fetched.status == "delivered" and fetched.date_sent is not None
    assert fetched.body == "Hola, ¿cómo está?"


def lists_filter_and_page(world):
    """messages: the list filters by to, from and date, and pages"""
    messages = client(world).messages
    began = datetime.now(timezone.utc) - timedelta(days=1)
    for n in range(5):
        messages.create(to="+573002120001", from_=SMS_FROM, body=f"mensaje {n}")
    messages.create(to="+573002120002", from_=SMS_FROM, body="otro")
    world.settle()
    found = list(messages.stream(to="+573002120001", page_size=2))
    assert [m.body for m in found] == [f"mensaje {n}" for n in (4, 3, 2, 1, 0)]
    assert len(messages.list(to="+573002120001", from_=SMS_FROM, date_sent_after=began)) == 5
    future = datetime.now(timezone.utc) + timedelta(days=365)
    assert messages.list(to="+573002120001", date_sent_after=future) == []
    assert len(messages.list(to="+573002120001", date_sent_before=future)) == 5
    assert len(messages.list(to="+573002120001", limit=3)) == 3


def refusals_have_their_codes(world):
    """messages: every refusal has Twilio's code and status, by TwilioRestException"""
    messages = client(world).messages
    send = lambda **more: code_of(lambda: messages.create(**{
        "to": "+573002130001", "from_": SMS_FROM, "body": "x", **more}))
    assert send(to="123") == (21211, 400)
    assert send(to="") == (21604, 400)
    assert send(from_="no es un número") == (21212, 400)
    assert send(body="x" * 1601) == (21617, 400)
    assert send(from_=WHATSAPP_FROM) == (21910, 400)
    assert send(to="whatsapp:+573002130001", from_="whatsapp:+14150000000") == (63007, 400)
    assert send(status_callback="https://mal_nombre.example/x") == (21609, 400)
    assert send(content_sid="HX1") == (21655, 400)
    assert send(content_sid=TEMPLATE, content_variables="no json") == (21656, 400)
    assert send(media_url=["no es url"]) == (21620, 400)
    magic = {"+15005550001": 21211, "+15005550002": 21612, "+15005550003": 21408,
             "+15005550004": 21610, "+15005550009": 21614}
    for number, code in magic.items():
        assert send(to=number) == (code, 400), number
    assert code_of(lambda: messages.create(to="+573002130001", from_=SMS_FROM)) == (21602, 400)
    assert code_of(lambda: messages.create(to="+573002130001", body="x")) == (21603, 400)
    wrong = client(world, "wrong-token").messages
    assert code_of(lambda: wrong.create(to="+573002130001", from_=SMS_FROM, body="x")) == (20003, 401)
    assert code_of(lambda: messages("SM" + "f" * 32).fetch()) == (20404, 404)


def scripted_codes_come_once(world):
    """messages: 20429, 20500 and any other code on demand"""
    messages = client(world).messages
    operation = "twilio.message_create"
    faults = [{"refuse": 429}, {"refuse": 500}, {"twilio_code": 21608}]
    world.control(script=[{"operation": operation, "fault": f} for f in faults])
    send = lambda: messages.create(to="+573002140001", from_=SMS_FROM, body="x")
    assert [code_of(send) for _ in faults] == [(20429, 429), (20500, 500), (21608, 400)]
    assert send().status == "queued"
    world.control(messages={"+573002140002": 21614})
    assert code_of(lambda: messages.create(to="+573002140002", from_=SMS_FROM, body="x")) == (21614, 400)
    world.control(messages={"+573002140002": 30005})
    failed = messages.create(to="+573002140002", from_=SMS_FROM, body="x")
    world.settle()
    fetched = messages(failed.sid).fetch()
    assert (fetched.status, fetched.error_code) == ("undelivered", 30005), fetched.status


def stop_is_respected(world):
    """messages: after STOP every message is refused with 21610, until START"""
    messages = client(world).messages
    person = "+573002150001"
    send = lambda: messages.create(to=person, from_=SMS_FROM, body="x")
    world.control(inbound=[{"channel": "sms", "from": person, "body": "STOP"}], settle=True)
    assert code_of(send) == (21610, 400)
    world.control(inbound=[{"channel": "sms", "from": person, "body": "start"}], settle=True)
    assert send().status == "queued"


def the_window_is_kept(world):
    """WhatsApp: free text outside the window is taken, then fails with 63016; a template passes"""
    messages = client(world).messages
    person = "whatsapp:+573002160001"
    text = messages.create(to=person, from_=WHATSAPP_FROM, body="hola")
    assert text.status == "queued"
    template = messages.create(to=person, from_=WHATSAPP_FROM, content_sid=TEMPLATE,
                               content_variables='{"1": "Ana"}')
    world.settle()
    fetched = messages(text.sid).fetch()
    assert fetched.status in ("failed", "undelivered") and fetched.error_code == 63016, fetched.status
    assert messages(template.sid).fetch().status == "read"
    world.control(inbound=[{"from": "+573002160001", "body": "hola"}], settle=True)
    inside = messages.create(to=person, from_=WHATSAPP_FROM, body="hola otra vez")
    world.settle()
    assert messages(inside.sid).fetch().status == "read"
    inbound = [m for m in messages.list(from_=person) if m.direction == "inbound"]
    assert [m.body for m in inbound] == ["hola"]


def phones_answer(world):
    """WhatsApp: simulated phones answer as often as they are told to"""
    messages = client(world).messages
    person = "whatsapp:+573002170001"
    world.control(rates={"phone_replies": 2}, open_window=["+573002170001"])
    for n in range(3):
        messages.create(to=person, from_=WHATSAPP_FROM, body=f"mensaje {n}")
        world.settle()
    assert len(messages.list(from_=person)) == 2


CHECKS = [
    sms_is_created_fetched_and_delivered,
    lists_filter_and_page,
    refusals_have_their_codes,
    scripted_codes_come_once,
    stop_is_respected,
    the_window_is_kept,
    phones_answer,
]
