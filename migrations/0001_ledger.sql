-- The ledger: what came in (deliveries) and what it means (events).
-- Both only grow. See DESIGN decisions 3 to 6 and docs/adr/0002.

-- Every append, by the batch writer or by postgres-es, holds this lock from its
-- first insert to its commit, so positions become visible in their own order.
create function ledger_lock() returns void language sql as
$$ select pg_advisory_xact_lock(4242, 1) $$;

create table events (
    -- The columns of postgres-es.
    aggregate_type text   not null,
    aggregate_id   text   not null,
    sequence       bigint not null check (sequence >= 0),
    event_type     text   not null,
    event_version  text   not null,
    payload        json   not null,
    metadata       json   not null,
    -- Ours, all with defaults, so that postgres-es need not know them.
    position       bigint generated always as identity,
    occurred_at    timestamptz,
    recorded_at    timestamptz not null default clock_timestamp(),
    delivery_id    uuid,
    primary key (aggregate_type, aggregate_id, sequence)
);
create unique index events_position on events (position);
-- For the auditor's filter by type, and for readers that want few types.
create index events_type on events (event_type, position);

comment on column events.position is 'Place in the one total order, which is commit order. Gaps are possible, inversions are not.';
comment on column events.occurred_at is 'By the provider''s word; null: it gave no time, recorded_at counts.';

create table deliveries (
    id             uuid primary key,
    seq            bigint generated always as identity,
    provider       text not null,
    route          text not null,
    verdict        text not null check (verdict in ('accepted', 'duplicate', 'quarantined', 'rejected')),
    reason         text,
    authentication text not null,
    dedup_key      bytea,
    repeat_key     bytea,
    duplicate_of   uuid,
    reprocess_of   uuid,
    position       bigint,
    received_at    timestamptz not null,
    remote_addr    text,
    request_target text not null,
    headers        json not null,
    body           bytea,
    body_bytes     integer not null
);
-- What is the same for ever: contract, section 1.
create unique index deliveries_dedup_key on deliveries (dedup_key) where dedup_key is not null;
-- What is the same for ten minutes only.
create index deliveries_repeat_key on deliveries (repeat_key, received_at) where repeat_key is not null;
-- What was read again, and whether it was understood.
create index deliveries_reprocess_of on deliveries (reprocess_of) where reprocess_of is not null;
-- The exceptions are what people look for.
create index deliveries_exceptions on deliveries (verdict, id) where verdict <> 'accepted';
create index deliveries_provider on deliveries (provider, id);

comment on column deliveries.id is 'UUID version 7: ordered by the time of receipt.';
comment on column deliveries.body is 'Byte for byte. Null in a duplicate whose bytes are those of duplicate_of.';
comment on column deliveries.position is 'Of the last event that it brought, or that the first of its kind brought.';

create function ledger_take_lock() returns trigger language plpgsql as $$
begin
    perform ledger_lock();
    return null;
end $$;
-- Identity values are drawn after this, so a reader that has seen position n is
-- never shown a smaller one later.
create trigger events_in_commit_order before insert on events
    for each statement execute function ledger_take_lock();

create function ledger_announce() returns trigger language plpgsql as $$
begin
    perform pg_notify('bitacora_events', '');
    return null;
end $$;
-- Only wakes readers: polling is the truth.
create trigger events_announced after insert on events
    for each statement execute function ledger_announce();

create function ledger_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger only grows: % on % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end $$;
create trigger events_append_only before update or delete or truncate on events
    for each statement execute function ledger_refuse_change();
create trigger deliveries_append_only before update or delete or truncate on deliveries
    for each statement execute function ledger_refuse_change();
-- An owner may take rights from itself; a superuser is stopped by the triggers.
revoke update, delete, truncate on events, deliveries from public, current_user;

-- The position of the last event that was recorded at or before a time, 0 when
-- there is none. recorded_at rises with position, so a binary search over the
-- position index does it and no index on the time is needed.
create function ledger_position_at(at timestamptz) returns bigint language plpgsql stable as $$
declare
    low bigint := 0;
    high bigint;
    middle bigint;
    found_position bigint;
    found_at timestamptz;
begin
    select coalesce(max(position), 0) into high from events;
    while low < high loop
        middle := (low + high + 1) / 2;
        select position, recorded_at into found_position, found_at
            from events where position <= middle order by position desc limit 1;
        if found_position is null or found_at <= at then
            low := middle;
        else
            high := found_position - 1;
        end if;
    end loop;
    return low;
end $$;

-- One row: what belongs to this ledger for its whole life.
create table instance (
    only_row        boolean primary key default true check (only_row),
    phone_index_key bytea not null,
    created_at      timestamptz not null default now()
);
comment on column instance.phone_index_key is 'The key under which phone numbers are looked up. Changing it orphans every WhatsApp conversation.';
