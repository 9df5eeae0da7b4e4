-- What we owe the outside: the policy's rows, and who works on them. The rows
-- are a function of the ledger, like any read model; docs/adr/0014.

create table effects (
    id                  text        primary key,
    kind                text        not null,
    lane                text        not null,
    ord                 bigint      not null,
    part                integer     not null,
    author              text        not null,
    state               text        not null,
    request             json        not null,
    as_template         boolean     not null,
    attempts            integer     not null,
    failures            integer     not null,
    attempted_at        timestamptz,
    due_at              timestamptz,
    expires_at          timestamptz not null,
    provider            text,
    provider_message_id text,
    error_status        integer,
    error_code          text,
    error_message       text,
    created_at          timestamptz not null,
    updated_at          timestamptz not null
);
-- What is still owed, in the order in which a lane is worked through.
create index effects_open on effects (lane, ord, part) include (kind, due_at, created_at)
    where state in ('waiting', 'attempted', 'uncertain', 'bounced');
-- The list is read newest first.
create index effects_newest on effects (created_at, id);
create index effects_state on effects (state, created_at, id);
create index effects_lane on effects (lane, created_at, id);
-- A callback names the provider's message only.
create index effects_message on effects (provider_message_id) where provider_message_id is not null;
comment on column effects.lane is 'Effects of one lane happen one after another: a conversation, or a one-time code.';
comment on column effects.ord is 'The position of what it answers; part is its place among the messages of one answer, 0 for the turn.';
comment on column effects.failures is 'Attempts that surely came to nothing since a person last asked for it: the schedule goes by them.';
comment on column effects.request is 'What to do. Of a one-time code only the challenge, never the code.';

create table effect_lanes (
    lane      text    primary key,
    status    text    not null,
    opted_out boolean not null,
    agent_id  text,
    provider  text
);
comment on table effect_lanes is 'Who speaks for us in a conversation, as far as the policy must know.';
comment on column effect_lanes.provider is 'Through which the client wrote last.';

-- A failure may be told before the answer that names the message.
create table effect_callbacks (
    provider_message_id text primary key,
    code                text
);
comment on table effect_callbacks is 'Failures of messages of which no effect is known (yet).';

create table effect_totals (
    state text   primary key,
    count bigint not null
);

-- Who works on a lane. Saves work and keeps the peace; that nothing happens
-- twice is kept by the streams of the effects.
create table effect_leases (
    lane   text        primary key,
    holder uuid        not null,
    until  timestamptz not null
);
create index effect_leases_holder on effect_leases (holder);
