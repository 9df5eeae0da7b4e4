-- Groups of clients, as the ledger has them (contract, section 4).
create table groups (
    id              integer     primary key,
    name            text        not null,
    agent_id        text,
    phone_number_id text,
    prefix          text        not null,
    variables       json        not null,
    clients_count   integer     not null,
    created_by      text        not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null
);

create table group_clients (
    group_id     integer     not null,
    -- From 1 within the group, in the order of joining.
    id           integer     not null,
    name         text        not null,
    phone_number text        not null,
    phone_key    text        not null,
    email        text,
    empresa      text,
    cargo        text,
    variables    json        not null,
    created_at   timestamptz not null,
    primary key (group_id, id)
);
-- In which groups is this number?
create index group_clients_phone on group_clients (phone_key, group_id, id);
comment on column group_clients.phone_key is 'Keyed hash of phone_number: the one way to look a person up.';

-- Numbers of groups. Drawn before the group is made, so a group whose making
-- was cut short leaves a gap.
create sequence group_ids as integer;
