"""ElevenLabs' REST operations, by the official SDK; raw answers against the SDK's models."""

import time

from elevenlabs import OutboundCallRecipient
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.errors import UnprocessableEntityError
from elevenlabs.types import (
    BatchCallDetailedResponse,
    BatchCallResponse,
    GetAgentResponseModel,
    GetConversationResponseModel,
    GetConversationsPageResponseModel,
    GetPhoneNumberSipTrunkResponseModel,
    GetPhoneNumberTwilioResponseModel,
    WorkspaceBatchCallsResponse,
)

from harness import AGENT, API_KEY, PHONE_SIP, PHONE_TWILIO


def client(world):
    return ElevenLabs(api_key=API_KEY, base_url=world.url).conversational_ai


def people(*numbers, **variables):
    return [
        OutboundCallRecipient(
            phone_number=number,
            conversation_initiation_client_data={"dynamic_variables": variables},
        )
        for number in numbers
    ]


def submit(world, name, *numbers, phone=PHONE_TWILIO, **more):
    recipients = people(*numbers, client_name="Ana García", client_id=42)
    return client(world).batch_calls.create(
        call_name=name, agent_id=AGENT, agent_phone_number_id=phone, recipients=recipients, **more
    )


def refused(call, status):
    """The body of the ApiError that `call` must raise."""
    try:
        call()
    except ApiError as error:
        assert error.status_code == status, f"refused with {error.status_code}, not {status}"
        return error.body
    raise AssertionError(f"not refused, expected {status}")


def batch_runs_to_its_end(world):
    """batch: submit → pending → in progress → completed, by the SDK and by its models"""
    batches = client(world).batch_calls
    batch = submit(world, "Campaña A", "+573001110001", "+573001110002")
    assert batch.status == "pending" and batch.total_calls_scheduled == 2, batch
    assert batch.phone_provider == "twilio" and batch.agent_name == "Cobranzas", batch
    world.control(advance_secs=5)
    assert batches.get(batch.id).status == "in_progress"
    world.settle()
    done = batches.get(batch.id)
    assert done.status == "completed", done.status
    assert (done.total_calls_dispatched, done.total_calls_finished) == (2, 2), done
    assert [r.status for r in done.recipients] == ["completed"] * 2
    assert all(r.conversation_id.startswith("conv_") for r in done.recipients)
    raw = world.get(f"/v1/convai/batch-calling/{batch.id}")
    BatchCallDetailedResponse.model_validate(raw)
    BatchCallResponse.model_validate(raw)


def outcomes_are_told_apart(world):
    """batch: busy, not answered and voicemail are failed, failed and voicemail"""
    numbers = ["+573001120001", "+573001120002", "+573001120003", "+573001120004"]
    fates = ["busy", "no-answer", "voicemail", "answered"]
    world.control(calls=dict(zip(numbers, fates)))
    batch = submit(world, "Campaña B", *numbers)
    world.settle()
    done = client(world).batch_calls.get(batch.id)
    assert [r.status for r in done.recipients] == ["failed", "failed", "voicemail", "completed"]


def batches_are_listed_in_pages(world):
    """batch: the workspace list pages by last_doc, newest first"""
    ids = [submit(world, f"Página {n}", "+573001130001").id for n in range(5)]
    seen, last_doc = [], None
    while True:
        page = client(world).batch_calls.list(limit=2, last_doc=last_doc)
        seen += [b.id for b in page.batch_calls]
        last_doc = page.next_doc
        if not page.has_more:
            break
    assert last_doc is None
    assert seen[:5] == ids[::-1], "not newest first, or not all"
    WorkspaceBatchCallsResponse.model_validate(world.get("/v1/convai/batch-calling/workspace"))


def cancel_stops_everyone(world):
    """batch: cancel sets everyone who is not done to cancelled; a second cancel is refused"""
    batches = client(world).batch_calls
    batch = submit(world, "Cancelada", *[f"+5730011400{n:02}" for n in range(30)])
    world.control(advance_secs=30)
    cancelled = batches.cancel(batch.id)
    assert cancelled.status == "cancelled", cancelled.status
    world.settle()
    statuses = {r.status for r in batches.get(batch.id).recipients}
    assert statuses <= {"cancelled", "completed"} and "cancelled" in statuses, statuses
    body = refused(lambda: batches.cancel(batch.id), 400)
    assert body["detail"]["code"] == "invalid_batch_call_status", body


def retry_calls_the_failed_again(world):
    """batch: retry calls only the failed again and counts itself"""
    batches = client(world).batch_calls
    world.control(calls={"+573001150001": "busy"})
    batch = submit(world, "Reintento", "+573001150001", "+573001150002")
    world.settle()
    first = batches.get(batch.id)
    assert [r.status for r in first.recipients] == ["failed", "completed"]
    world.control(calls={"+573001150001": "answered"})
    assert batches.retry(batch.id).retry_count == 1
    world.settle()
    again = batches.get(batch.id)
    assert [r.status for r in again.recipients] == ["completed", "completed"]
    assert again.recipients[0].conversation_id != first.recipients[0].conversation_id
    assert again.recipients[1].conversation_id == first.recipients[1].conversation_id


def schedule_is_kept(world):
    """batch: scheduled_time_unix is honoured"""
    batches = client(world).batch_calls
    now = world.truth()["now_unix_ms"] // 1000
    batch = submit(world, "Mañana", "+573001160001", scheduled_time_unix=now + 3600)
    world.control(advance_secs=30)
    assert batches.get(batch.id).status == "pending"
    batches.delete(batch.id)
    refused(lambda: batches.get(batch.id), 404)


def bad_submits_are_422(world):
    """batch: a bad submit is a 422 whose detail is an array"""
    batches = client(world).batch_calls
    try:
        batches.create(call_name="x", agent_id=AGENT, recipients=[OutboundCallRecipient()])
        raise AssertionError("not refused")
    except UnprocessableEntityError as error:
        found = error.body["detail"] if isinstance(error.body, dict) else error.body.detail
        assert found, "no detail"
    status, body = world.request("POST", "/v1/convai/batch-calling/submit", {"call_name": "x"})
    assert status == 422 and [d["loc"] for d in body["detail"]] == [
        ["body", "agent_id"], ["body", "recipients"],
    ], body


def errors_have_an_object(world):
    """errors: 401, 404, 429 and 500 have an object, by the SDK's ApiError"""
    batches = client(world).batch_calls
    assert refused(lambda: batches.get("btcal_none"), 404)["detail"]["type"] == "not_found"
    script = [{"operation": "elevenlabs.batch_get", "fault": {"refuse": s}} for s in (429, 500, 503)]
    world.control(script=script)
    options = {"max_retries": 0}
    for status, kind in [(429, "rate_limit_error"), (500, "internal_error"), (503, "service_unavailable")]:
        body = refused(lambda: batches.get("btcal_none", request_options=options), status)
        assert body["detail"]["type"] == kind, body
    status, body = world.request("GET", f"/v1/convai/agents/{AGENT}", headers={"xi-api-key": ""})
    assert status == 401 and body["detail"]["status"] == "needs_authorization", body
    status, body = world.request("GET", "/v1/convai/nothing")
    assert (status, body) == (404, {"detail": "Not Found"})
    agents = client(world).agents
    body = refused(lambda: agents.get("agent_none"), 404)
    assert body["detail"]["code"] == "agent_not_found", body


def conversations_are_whole(world):
    """conversations: get, list by cursor, and audio"""
    convai = client(world)
    batch = submit(world, "Conversaciones", *[f"+57300117000{n}" for n in range(3)])
    world.settle()
    ids = [r.conversation_id for r in convai.batch_calls.get(batch.id).recipients]
    conversation = convai.conversations.get(ids[0])
    assert conversation.status == "done" and conversation.has_audio
    assert conversation.metadata.batch_call.batch_call_id == batch.id
    assert conversation.metadata.phone_call.type == "twilio"
    assert conversation.metadata.phone_call.external_number == "+573001170000"
    variables = conversation.conversation_initiation_client_data.dynamic_variables
    assert variables["client_name"] == "Ana García" and variables["client_id"] == 42
    assert conversation.analysis.transcript_summary
    assert conversation.transcript[0].message == "Hola, ¿hablo con Ana?"
    raw = world.get(f"/v1/convai/conversations/{ids[0]}")
    GetConversationResponseModel.model_validate(raw)
    seen, cursor = [], None
    while True:
        page = convai.conversations.list(page_size=2, cursor=cursor, agent_id=AGENT)
        seen += [c.conversation_id for c in page.conversations]
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert set(ids) <= set(seen) and len(seen) == len(set(seen))
    GetConversationsPageResponseModel.model_validate(world.get("/v1/convai/conversations"))
    later = convai.conversations.list(call_start_after_unix=int(time.time()) + 10**6)
    assert later.conversations == []
    audio = b"".join(convai.conversations.audio.get(ids[0]))
    assert audio[:3] == b"ID3" and len(audio) > 1000


def no_audio_is_404(world):
    """conversations: a call without an answer is failed and has no audio"""
    convai = client(world)
    world.control(calls={"+573001180001": "busy"})
    batch = submit(world, "Sin audio", "+573001180001", phone=PHONE_SIP)
    world.settle()
    recipient = convai.batch_calls.get(batch.id).recipients[0]
    conversation = convai.conversations.get(recipient.conversation_id)
    assert conversation.status == "failed" and not conversation.has_audio
    assert conversation.metadata.phone_call.type == "sip_trunking"
    audio = convai.conversations.audio
    refused(lambda: b"".join(audio.get(recipient.conversation_id)), 404)


def phone_numbers_are_a_bare_array(world):
    """phone numbers: a bare array of Twilio and SIP trunk numbers"""
    numbers = client(world).phone_numbers.list()
    assert {n.provider for n in numbers} == {"twilio", "sip_trunk"}
    raw = world.get("/v1/convai/phone-numbers")
    assert isinstance(raw, list)
    models = {"twilio": GetPhoneNumberTwilioResponseModel, "sip_trunk": GetPhoneNumberSipTrunkResponseModel}
    for number in raw:
        models[number["provider"]].model_validate(number)


def agents_are_patched_deeply(world):
    """agents: get and update; the update is deep and moves version_id"""
    agents = client(world).agents
    before = agents.get(AGENT)
    placeholders = {"dynamic_variables": {"dynamic_variable_placeholders": {"grupo": "Norte"}}}
    after = agents.update(AGENT, conversation_config={"agent": placeholders}, tags=["x"])
    assert after.version_id != before.version_id
    assert after.conversation_config.agent.first_message == before.conversation_config.agent.first_message
    raw = world.get(f"/v1/convai/agents/{AGENT}")
    known = raw["conversation_config"]["agent"]["dynamic_variables"]["dynamic_variable_placeholders"]
    assert known == {"client_name": "cliente", "grupo": "Norte"}, known
    assert raw["tags"] == ["x"] and raw["name"] == before.name
    GetAgentResponseModel.model_validate(raw)
    status, body = world.request("PATCH", f"/v1/convai/agents/{AGENT}", {"name": 7})
    assert status == 422 and body["detail"][0]["type"] == "string_type"


def outbound_calls_answer_in_camel_case(world):
    """twilio outbound-call: answers conversation_id and callSid"""
    convai = client(world)
    placed = convai.twilio.outbound_call(
        agent_id=AGENT, agent_phone_number_id=PHONE_TWILIO, to_number="+573001190001"
    )
    assert placed.success and placed.call_sid.startswith("CA"), placed
    world.settle()
    conversation = convai.conversations.get(placed.conversation_id)
    assert conversation.status == "done" and conversation.metadata.batch_call is None


def a_hung_submit_is_carried_out(world):
    """faults: a submit that is never answered is in the workspace list all the same"""
    world.control(script=[{"operation": "elevenlabs.batch_submit", "fault": "hang_after_work"}])
    try:
        submit(world, "Ambigua", "+573001200001",
               request_options={"timeout_in_seconds": 1, "max_retries": 0})
        raise AssertionError("the hung request was answered")
    except Exception as error:
        assert "timed out" in str(error).lower() or "timeout" in type(error).__name__.lower(), error
    found = [b for b in client(world).batch_calls.list().batch_calls if b.name == "Ambigua"]
    assert len(found) == 1, f"{len(found)} batches"


CHECKS = [
    batch_runs_to_its_end,
    outcomes_are_told_apart,
    batches_are_listed_in_pages,
    cancel_stops_everyone,
    retry_calls_the_failed_again,
    schedule_is_kept,
    bad_submits_are_422,
    errors_have_an_object,
    conversations_are_whole,
    no_audio_is_404,
    phone_numbers_are_a_bare_array,
    agents_are_patched_deeply,
    outbound_calls_answer_in_camel_case,
    a_hung_submit_is_carried_out,
]
