-- A batch of the writer, appended by one statement: one round trip, and the
-- ledger lock is held while PostgreSQL writes, not while the disk does. See
-- docs/adr/0016.

-- Returns to a transaction that cannot commit before everything that was
-- committed until now is as durable as synchronous_commit says.
create function ledger_flush() returns void language sql as
$$ select pg_logical_emit_message(true, 'bitacora', '') $$;

-- Bodies of some kilobytes are the rule. Compressing them by lz4 takes a
-- fraction of the time of PostgreSQL's own way; a server built without lz4
-- goes on with that.
do $$ begin
    alter table deliveries alter column body set compression lz4, alter column headers set compression lz4;
    alter table events alter column payload set compression lz4;
exception when feature_not_supported then
    raise notice 'this PostgreSQL has no lz4: bodies are compressed by pglz, which is slower';
end $$;

-- Appends deliveries and events, given by their columns. `place` is an
-- element's index, from 1. All that it reads it reads under the lock, each
-- statement with a snapshot of its own, so every earlier append is seen.
create function ledger_append(
    -- Of each delivery. `d_identity` null: it is like no other. Not
    -- `d_lasting`: only within the window. `d_earlier`: the place of an
    -- earlier one with the same identity; `d_as_earlier`: and the same body.
    -- `d_last_event`: the place of the event whose position it answers with.
    d_id uuid[], d_provider text[], d_route text[], d_verdict text[], d_reason text[],
    d_authentication text[], d_identity bytea[], d_lasting boolean[], d_window interval,
    d_earlier int[], d_as_earlier boolean[], d_last_event int[], d_reprocess_of uuid[],
    d_received_at timestamptz[], d_remote_addr text[], d_request_target text[], d_headers text[],
    d_body bytea[],
    -- Of each event. `e_delivery`: the place of the delivery that brought it,
    -- null for what is a fact without one. `e_nth`: it is so many-th of these
    -- events on its stream, which `e_stream` numbers.
    e_delivery int[], e_stream int[], e_nth int[], e_aggregate_type text[], e_aggregate_id text[],
    e_type text[], e_version text[], e_payload text[], e_metadata text[], e_occurred_at timestamptz[],
    -- Of each delivery: which one on the ledger is the same, if any, and its
    -- position. Of each event: its position, if it was written.
    out first_id uuid[], out first_at bigint[], out event_at bigint[]
) language plpgsql as $$
declare
    known record;
    holds_identity boolean[] := array_fill(true, array[cardinality(d_id)]);
    positions regclass := pg_get_serial_sequence('events', 'position');
begin
    perform ledger_lock();
    -- The lock is let go before the disk has it. Whoever answers for it, or
    -- shows it to the outside, calls ledger_flush() first.
    perform set_config('synchronous_commit', 'off', true);

    -- What is known already.
    first_id := array_fill(null::uuid, array[cardinality(d_id)]);
    first_at := array_fill(null::bigint, array[cardinality(d_id)]);
    for known in
        select q.place, d.id, d.position
          from unnest(d_identity) with ordinality as q (identity, place)
          join deliveries d on d.dedup_key = q.identity
        union all
        (select distinct on (q.place) q.place, d.id, d.position
           from unnest(d_identity, d_lasting, d_received_at)
                with ordinality as q (identity, lasting, received_at, place)
           join deliveries d on d.repeat_key = q.identity and d.received_at > q.received_at - d_window
          where not q.lasting
          order by q.place, d.received_at)
        union all
        -- A second reading is a duplicate of an earlier one that was understood,
        select q.place, d.id, d.position
          from unnest(d_reprocess_of) with ordinality as q (original, place)
          join deliveries d on d.reprocess_of = q.original and d.verdict = 'accepted'
    loop
        -- and none of the delivery that it reads.
        if known.id = d_reprocess_of[known.place] then
            holds_identity[known.place] := false;
        else
            first_id[known.place] := known.id;
            first_at[known.place] := known.position;
        end if;
    end loop;
    for known in
        select q.place, d_id[q.earlier] as id
          from unnest(d_earlier, first_id) with ordinality as q (earlier, first, place)
         where q.earlier is not null and q.first is null
    loop
        first_id[known.place] := known.id;
    end loop;

    -- Positions are drawn under the lock, in the order of the events.
    event_at := array(
        select case when e.delivery is null or first_id[e.delivery] is null then nextval(positions) end
          from unnest(e_delivery) with ordinality as e (delivery, place)
         order by e.place);
    insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                        metadata, position, occurred_at, delivery_id)
        overriding system value
    select e.aggregate_type, e.aggregate_id,
           coalesce(
               (select last.sequence from events last
                 where last.aggregate_type = e.aggregate_type and last.aggregate_id = e.aggregate_id
                 order by last.sequence desc limit 1), 0)
               + e.nth
               -- Without those before it that are left out.
               - case when e.nth = 1 then 0 else (
                     select count(*) from unnest(e_stream, event_at) with ordinality as other (stream, position, place)
                      where other.stream = e.stream and other.place < e.place and other.position is null) end,
           e.type, e.version, e.payload::json, e.metadata::json, e.position, e.occurred_at, d_id[e.delivery]
      from unnest(e_delivery, e_stream, e_nth, e_aggregate_type, e_aggregate_id, e_type, e_version, e_payload,
                  e_metadata, event_at, e_occurred_at)
           with ordinality as e (delivery, stream, nth, aggregate_type, aggregate_id, type, version, payload,
                  metadata, position, occurred_at, place)
     where e.position is not null;

    insert into deliveries (id, provider, route, verdict, reason, authentication, dedup_key, repeat_key,
                            duplicate_of, reprocess_of, position, received_at, remote_addr,
                            request_target, headers, body, body_bytes)
    select d.id, d.provider, d.route,
           case when d.first is null then d.verdict else 'duplicate' end,
           case when d.first is null then d.reason end,
           d.authentication,
           case when d.first is null and d.holds and d.lasting then d.identity end,
           case when d.first is null and d.holds and not d.lasting then d.identity end,
           d.first, d.reprocess_of, coalesce(d.first_at, event_at[d.last_event]), d.received_at,
           d.remote_addr, d.request_target, d.headers::json,
           case when d.reprocess_of is not null then null
                when d.first is null then d.body
                when d.first = d_id[d.earlier] then case when d.as_earlier then null else d.body end
                when d.body = (select f.body from deliveries f where f.id = d.first) then null
                else d.body end,
           octet_length(d.body)
      from unnest(d_id, d_provider, d_route, d_verdict, d_reason, d_authentication, d_identity, d_lasting,
                  holds_identity, first_id, first_at, d_earlier, d_as_earlier, d_last_event, d_reprocess_of,
                  d_received_at, d_remote_addr, d_request_target, d_headers, d_body)
           as d (id, provider, route, verdict, reason, authentication, identity, lasting,
                  holds, first, first_at, earlier, as_earlier, last_event, reprocess_of,
                  received_at, remote_addr, request_target, headers, body)
     -- What an earlier try wrote, whose answer was lost, is there already: such
     -- a one is its own first, or a duplicate. Not `not exists`, which may be
     -- planned as a hash of the whole table.
     where d.first is null or (select true from deliveries k where k.id = d.id) is null;
end $$;
