-- The read models of WhatsApp conversations: one a client's number, its
-- messages, and the numbers of a day. The columns of the replaced service are
-- here under its names. Functions of the ledger alone; see 0002.

create table conversation_state (
    id                         text        primary key,
    phone_number               text        not null,
    phone_key                  text        not null,
    client_name                text,
    elevenlabs_conversation_id text,
    agent_id                   text,
    batch_id                   text,
    recipient_id               text,
    status                     text        not null,
    call_summary               text,
    call_duration_secs         bigint,
    started_at                 timestamptz not null,
    last_message_at            timestamptz not null,
    closed_at                  timestamptz,
    message_count              bigint      not null,
    metadata                   jsonb       not null,
    last_provider              text,
    last_inbound_at            timestamptz,
    opted_out                  boolean     not null,
    escalated_by               text,
    told                       json        not null,
    search                     tsvector    not null
);
create unique index conversation_state_phone on conversation_state (phone_number);
-- The list is read by who wrote last, with or without a status.
create index conversation_state_newest on conversation_state (last_message_at, id);
create index conversation_state_status on conversation_state (status, last_message_at, id);
-- By the call, as the replaced service looked a conversation up.
create index conversation_state_call on conversation_state (elevenlabs_conversation_id)
    where elevenlabs_conversation_id is not null;
-- Names. No pending list: a reader would have to search it whole.
create index conversation_state_search on conversation_state using gin (search) with (fastupdate = off);
comment on table conversation_state is 'One WhatsApp conversation, which is one client''s number.';
comment on column conversation_state.id is 'conv_local_ and the key of the number: whoever knows a number finds it by this.';
comment on column conversation_state.elevenlabs_conversation_id is 'The call that went on; without one, the last session of text.';
comment on column conversation_state.started_at is 'When we last wrote after a call; without one, the first message.';
comment on column conversation_state.last_provider is 'Through which the client wrote last.';
comment on column conversation_state.last_inbound_at is 'When the client wrote last: for 24 hours WhatsApp lets us write freely.';
comment on column conversation_state.told is 'What each source said, so that the order of arrival changes as little as can be.';

create table conversation_messages (
    id                  text        primary key,
    conversation_id     text        not null,
    direction           text        not null,
    content             text        not null,
    twilio_message_id   text,
    elevenlabs_response jsonb,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    read_at             timestamptz,
    metadata            jsonb       not null,
    kind                text        not null,
    media               json        not null,
    status              text        not null,
    provider            text,
    author              text        not null,
    in_reply_to         text,
    error_code          text,
    error_message       text,
    created_at          timestamptz not null,
    position            bigint      not null,
    part                integer     not null,
    words_key           text,
    told                json
);
-- A conversation as people see it, from its end.
create index conversation_messages_newest on conversation_messages (conversation_id, created_at, position, part);
-- A callback names the provider's id only; the answer to a message, its position.
create index conversation_messages_twilio on conversation_messages (twilio_message_id) where twilio_message_id is not null;
create index conversation_messages_position on conversation_messages (position) where direction = 'inbound';
-- What waits when a person takes over, or when the client wants to hear no more.
create index conversation_messages_queued on conversation_messages (conversation_id) where status = 'queued';
-- What may be confirmed by the provider's own word that it was sent.
create index conversation_messages_words on conversation_messages (conversation_id, words_key) where words_key is not null;
comment on column conversation_messages.id is 'Of a client''s message the provider''s id, or ev- and its position; of ours that of the effect.';
comment on column conversation_messages.author is 'agent, person:<who>, first (after a call), client, or external: sent through the provider by somebody else.';
comment on column conversation_messages.words_key is 'Of what builderbot may confirm: a digest of the words.';
comment on column conversation_messages.told is 'What became of our effect, apart from the provider''s callbacks.';

-- Callbacks may come before the answer that names the message.
create table conversation_callbacks (
    message_id    text        primary key,
    status        text        not null,
    error_code    text,
    error_message text,
    sent_at       timestamptz,
    delivered_at  timestamptz,
    read_at       timestamptz
);
comment on table conversation_callbacks is 'How far messages have come, by the provider''s id.';

-- builderbot tells of every message that it sent, ours too, mostly without an id.
create table conversation_echoes (
    position        bigint      primary key,
    conversation_id text        not null,
    words_key       text        not null,
    occurred_at     timestamptz not null,
    provider        text,
    confirms        text,
    message         json        not null
);
create index conversation_echoes_words on conversation_echoes (conversation_id, words_key);
comment on column conversation_echoes.confirms is 'The message of ours that this is; null: somebody else sent it.';

create table conversation_quarters (
    bucket         timestamptz primary key,
    started        bigint      not null,
    opened         bigint      not null,
    responded      bigint      not null,
    sent           bigint      not null,
    received       bigint      not null,
    response_count bigint      not null,
    response_secs  bigint      not null
);
comment on table conversation_quarters is 'What happened in each quarter of an hour, UTC: every time zone''s day is made of some.';
comment on column conversation_quarters.opened is 'Conversations that we began after a call; started counts those of the clients too.';
comment on column conversation_quarters.responded is 'Of those opened here, how many the client has answered, whenever.';
comment on column conversation_quarters.response_secs is 'Of the answers of the agent that went out here: seconds since what they answer.';

create table conversation_totals (
    status text   primary key,
    count  bigint not null
);
