-- The read models of batches: what was ordered, how each recipient stands, and
-- every call that was tried. Like all read models they are functions of the
-- ledger alone; see 0002.

create table batches (
    id                     text        primary key,
    batch_id               text,
    call_name              text        not null,
    status                 text        not null,
    agent_id               text        not null,
    agent_name             text,
    phone_number_id        text,
    phone_provider         text,
    group_id               integer,
    group_call_id          text,
    part                   integer,
    parts                  integer,
    requested_by           text,
    created_at             timestamptz not null,
    created_at_unix        bigint,
    scheduled_time_unix    bigint,
    last_updated_at_unix   bigint,
    total_calls_dispatched bigint      not null,
    total_calls_scheduled  bigint      not null,
    total_calls_finished   bigint,
    retry_count            bigint      not null,
    recipients_count       bigint      not null,
    pending                bigint      not null,
    in_progress            bigint      not null,
    completed              bigint      not null,
    failed                 bigint      not null,
    cancelled              bigint      not null,
    voicemail              bigint      not null,
    has_open_order         boolean     not null,
    is_unsettled           boolean     not null,
    duplicate_of           text,
    state                  json        not null
);
-- By the provider's id, which a discovered batch shares with its order.
create index batches_batch_id on batches (batch_id) where batch_id is not null;
-- The list is read newest first, by (created_at, id), and shows no batch twice.
create index batches_newest on batches (created_at, id) where duplicate_of is null;
create index batches_status on batches (status, created_at, id) where duplicate_of is null;
create index batches_group on batches (group_id, created_at, id) where group_id is not null and duplicate_of is null;
-- The few that somebody has work with: the driver and the monitor.
create index batches_open on batches (created_at, id) where has_open_order and duplicate_of is null;
create index batches_unsettled on batches (created_at, id) where is_unsettled and duplicate_of is null;
comment on column batches.id is 'Our own id.';
comment on column batches.batch_id is 'The provider''s id, as in interactions.batch_id; null until it has one.';
comment on column batches.is_unsettled is 'The provider has it and may still change it.';
comment on column batches.duplicate_of is 'The order that this batch, discovered at the provider, turned out to be.';
comment on column batches.state is 'What its own stream adds up to, without the recipients.';

create table batch_recipients (
    batch_key       text    not null,
    id              text    not null,
    place           integer not null,
    phone_number    text,
    client_id       integer,
    variables       json    not null,
    status          text    not null,
    conversation_id text,
    called_at       timestamptz,
    call_duration   bigint,
    attempts        integer not null,
    created_at_unix bigint,
    updated_at_unix bigint,
    seen            json    not null,
    primary key (batch_key, id)
);
-- All of a batch, in the order in which they were ordered.
create index batch_recipients_place on batch_recipients (batch_key, place, id);
comment on column batch_recipients.batch_key is 'batches.id: our own id of the batch.';
comment on column batch_recipients.id is 'The provider''s id of the recipient; ours where it kept it, and until it is heard of.';
comment on column batch_recipients.status is 'Of the current call, or of the waiting for one.';
comment on column batch_recipients.seen is 'What the provider''s list said, so that the order of arrival changes nothing.';

create table call_attempts (
    batch_key       text        not null,
    recipient_id    text        not null,
    conversation_id text        not null,
    group_id        integer,
    attempt         integer     not null,
    phone_number    text,
    client_id       integer,
    status          text        not null,
    called_at       timestamptz not null,
    ended_at        timestamptz,
    duration_secs   bigint,
    failure_reason  text,
    call_sid        text,
    missing_since   timestamptz,
    primary key (batch_key, recipient_id, conversation_id)
);
-- A webhook names the conversation only.
create index call_attempts_conversation on call_attempts (conversation_id);
-- The history of a group, newest first.
create index call_attempts_group on call_attempts (group_id, called_at, conversation_id) where group_id is not null;
-- What the reconciler looks for: few rows, or it has work.
create index call_attempts_missing on call_attempts (missing_since, conversation_id) where missing_since is not null;
comment on table call_attempts is 'One row a call that was tried for a recipient of a batch.';
comment on column call_attempts.missing_since is 'The call ended then, and no webhook of the provider has told of it.';

-- What webhooks say of calls, kept until a batch claims it and after: failure
-- webhooks name no batch, the carrier's callbacks only the telephone leg. So
-- each may come before whatever joins it.
create table batch_calls (
    conversation_id text primary key,
    batch_id        text,
    recipient_id    text,
    call_sid        text,
    facts           json not null
);
create index batch_calls_recipient on batch_calls (batch_id, recipient_id) where batch_id is not null;
create index batch_calls_leg on batch_calls (call_sid) where call_sid is not null;
comment on table batch_calls is 'The provider''s reports of outgoing calls, and its words that one could not be started.';

create table batch_legs (
    call_sid text primary key,
    leg      json not null
);
comment on table batch_legs is 'What the carrier said of outgoing telephone legs.';

-- Recordings that the provider has and we do not: for the reconciler.
create index call_details_unrecorded on call_details (interaction_id) where has_audio and audio_delivery_id is null;
