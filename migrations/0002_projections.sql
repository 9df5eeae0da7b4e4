-- The read models: what the ledger means, in the shape people ask for it.
-- Every row here is a function of the ledger alone and may be dropped and
-- folded again at any time (DESIGN 7 and 8). Hence no foreign keys between
-- these tables, no serial ids and no now(): a rebuild must end in the same
-- rows, and swaps its tables in one by one. A later migration that changes a
-- table here also raises its projection's version.

-- How far each projection has folded. The row is also the lock that makes one
-- replica the folder of it.
create table projection_checkpoints (
    name       text        not null,
    build      text        not null check (build in ('live', 'rebuild')),
    version    integer     not null,
    position   bigint      not null default 0,
    error      text,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (name, build)
);
comment on column projection_checkpoints.error is 'Why it stopped; null while it runs. It is tried again at every turn.';

-- Searching: Spanish stems, but no stop words. A phrase, and a word that must
-- not be there, mean what they say only when every word is looked at. Accents
-- and case are taken away before a text gets here.
create text search dictionary bitacora_stem (template = snowball, language = spanish);
create text search configuration bitacora (copy = pg_catalog.spanish);
alter text search configuration bitacora alter mapping replace spanish_stem with bitacora_stem;

create table interactions (
    id              text        primary key,
    channel         text        not null,
    provider        text,
    direction       text,
    status          text        not null,
    phone_number    text,
    phone_key       text,
    agent_id        text,
    batch_id        text,
    conversation_id text,
    call_sid        text,
    started_at      timestamptz not null,
    ended_at        timestamptz,
    last_event_at   timestamptz not null,
    duration_secs   bigint,
    summary         text,
    message_count   bigint      not null,
    first_position  bigint      not null,
    last_position   bigint      not null
);
-- The list is read newest first, by (started_at, id): every index ends in
-- these two, is read backwards, and needs no sort. One index for each filter;
-- of several the planner takes the rarest and checks the others on the row.
create index interactions_newest on interactions (started_at, id);
create index interactions_channel on interactions (channel, started_at, id);
create index interactions_status on interactions (status, started_at, id);
create index interactions_direction on interactions (direction, started_at, id);
create index interactions_provider on interactions (provider, started_at, id);
-- Most rows have a phone; few have an agent or a batch.
create index interactions_phone on interactions (phone_key, started_at, id) where phone_key is not null;
create index interactions_agent on interactions (agent_id, started_at, id) where agent_id is not null;
create index interactions_batch on interactions (batch_id, started_at, id) where batch_id is not null;
comment on table interactions is 'One call, one WhatsApp conversation, or one SMS.';
comment on column interactions.phone_key is 'Keyed hash of phone_number: the one way to look a person up.';

-- Other names that an interaction answers to: the carrier's id of a call.
create table interaction_aliases (
    alias          text primary key,
    interaction_id text not null
);

create table interaction_events (
    interaction_id text        not null,
    position       bigint      not null,
    type           text        not null,
    occurred_at    timestamptz not null,
    recorded_at    timestamptz not null,
    provider       text,
    delivery_id    uuid,
    payload        json        not null,
    primary key (interaction_id, position)
);
comment on table interaction_events is 'The timeline of an interaction, as the ledger took it.';

create table messages (
    interaction_id      text        not null,
    id                  text        not null,
    direction           text        not null,
    content             text,
    kind                text,
    media               json        not null,
    details             json        not null,
    status              text        not null,
    provider            text,
    provider_message_id text,
    error_code          text,
    error_message       text,
    created_at          timestamptz not null,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    read_at             timestamptz,
    failed_at           timestamptz,
    updated_at          timestamptz not null,
    first_position      bigint      not null,
    search              tsvector    not null,
    primary key (interaction_id, id)
);
-- The newest messages of one conversation, however long it is.
create index messages_newest on messages (interaction_id, created_at, first_position);
-- Words in messages. No pending list: a reader would have to search it whole.
create index messages_search on messages using gin (search) with (fastupdate = off);
comment on column messages.content is 'Null: only callbacks are known yet.';

create table call_details (
    interaction_id     text   primary key,
    duration_secs      bigint,
    transcript         json   not null,
    summary            text,
    summary_title      text,
    analysis           json   not null,
    call_successful    text,
    termination_reason text,
    failure_reason     text,
    error              text,
    recording_url      text,
    has_audio          boolean not null,
    audio_delivery_id  uuid,
    audio_content_type text,
    audio_bytes        bigint,
    language           text,
    cost_credits       bigint,
    agent_name         text,
    carrier            text,
    carrier_status     text,
    sip_status         bigint,
    call_sid           text,
    agent_number       text,
    phone_number_id    text,
    dynamic_variables  json   not null,
    batch_recipient_id text,
    provider_status    text,
    sources            json   not null,
    search             tsvector not null
);
-- Words in transcripts and summaries.
create index call_details_search on call_details using gin (search) with (fastupdate = off);
comment on column call_details.sources is 'What each source said where they compete, so that their order of arrival changes nothing.';

create table audit_log (
    position     bigint      primary key,
    occurred_at  timestamptz not null,
    recorded_at  timestamptz not null,
    actor        text        not null,
    role         text,
    action       text        not null,
    target       text,
    outcome      text        not null,
    from_address text,
    request_id   text,
    detail       text
);
-- Newest first by position; times become positions (ledger_position_at).
create index audit_log_actor on audit_log (actor, position);
create index audit_log_action on audit_log (action, position);

create table users (
    id         integer     primary key,
    name       text        not null,
    email      text        not null,
    role       text        not null,
    agent_id   text,
    created_at timestamptz not null
);
-- Log-in. Not unique: that is decided before the fact, a fold refuses nothing.
create index users_email on users (email, id);
