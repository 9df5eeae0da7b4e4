-- A batch of the writer, appended by one statement: one round trip, and the
-- ledger lock is held no longer than PostgreSQL needs. See docs/adr/0016.

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
    d_id uuid[], d_provider text[], d_route text[], d_verdict text[], d_reason text[],
    d_authentication text[], d_identity bytea[], d_lasting boolean[], d_window interval,
    d_earlier int[], d_as_earlier boolean[], d_reprocess_of uuid[], d_received_at timestamptz[],
    d_remote_addr text[], d_request_target text[], d_headers text[], d_body bytea[],
    -- Of each event. `e_delivery`: the place of the delivery that brought it,
    -- null for what is a fact without one. `e_stream`: a number for each
    -- stream of these.
    e_delivery int[], e_stream int[], e_aggregate_type text[], e_aggregate_id text[],
    e_type text[], e_version text[], e_payload text[], e_metadata text[], e_occurred_at timestamptz[],
    -- Of each delivery: which one on the ledger is the same, if any, and the
    -- position that it answers with. Of each event: its position.
    out first_id uuid[], out answer_at bigint[], out event_at bigint[]
) language plpgsql
-- Always by the indexes: statistics of a ledger that was empty a minute ago
-- would have it read whole tables.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan set jit = off
as $$
declare
    found_one record;
    holds_identity boolean[] := array_fill(true, array[cardinality(d_id)]);
    positions regclass := pg_get_serial_sequence('events', 'position');
    place int;
begin
    perform ledger_lock();

    -- What is known already.
    first_id := array_fill(null::uuid, array[cardinality(d_id)]);
    answer_at := array_fill(null::bigint, array[cardinality(d_id)]);
    for found_one in
        select q.place, d.id, d.position, d.id = d_reprocess_of[q.place] as is_itself
          from unnest(d_identity, d_lasting) with ordinality as q (identity, lasting, place)
          join deliveries d on d.dedup_key = q.identity
         where q.lasting
    loop
        -- A second reading is no duplicate of the delivery that it reads.
        if found_one.is_itself then
            holds_identity[found_one.place] := false;
        else
            first_id[found_one.place] := found_one.id;
            answer_at[found_one.place] := found_one.position;
        end if;
    end loop;
    if false = any (d_lasting) then
        for found_one in
            select distinct on (q.place) q.place, d.id, d.position, d.id = d_reprocess_of[q.place] as is_itself
              from unnest(d_identity, d_lasting, d_received_at)
                   with ordinality as q (identity, lasting, received_at, place)
              join deliveries d on d.repeat_key = q.identity and d.received_at > q.received_at - d_window
             where not q.lasting
             order by q.place, d.received_at
        loop
            if found_one.is_itself then
                holds_identity[found_one.place] := false;
            else
                first_id[found_one.place] := found_one.id;
                answer_at[found_one.place] := found_one.position;
            end if;
        end loop;
    end if;
    -- Nor is it one of anything but an earlier second reading that was understood.
    for found_one in
        select q.place, d.id, d.position
          from unnest(d_reprocess_of) with ordinality as q (original, place)
          join deliveries d on d.reprocess_of = q.original and d.verdict = 'accepted'
    loop
        first_id[found_one.place] := found_one.id;
        answer_at[found_one.place] := found_one.position;
    end loop;
    for place in select q.place from unnest(d_earlier) with ordinality as q (earlier, place)
                  where q.earlier is not null order by q.place
    loop
        if first_id[place] is null then
            first_id[place] := coalesce(first_id[d_earlier[place]], d_id[d_earlier[place]]);
        end if;
    end loop;

    -- Positions are drawn under the lock, in the order of the events.
    event_at := array(
        select case when e.delivery is null or first_id[e.delivery] is null
                    then nextval(positions) end
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
               + row_number() over (partition by e.stream order by e.place),
           e.type, e.version, e.payload::json, e.metadata::json, e.position, e.occurred_at, d_id[e.delivery]
      from unnest(e_delivery, e_stream, e_aggregate_type, e_aggregate_id, e_type, e_version, e_payload,
                  e_metadata, event_at, e_occurred_at)
           with ordinality as e (delivery, stream, aggregate_type, aggregate_id, type, version, payload,
                  metadata, position, occurred_at, place)
     where e.position is not null;

    -- A delivery answers with the position of its last event, a duplicate with
    -- that of the first.
    for found_one in
        select e.delivery, max(e.position) as position
          from unnest(e_delivery, event_at) as e (delivery, position)
         where e.delivery is not null and e.position is not null
         group by e.delivery
    loop
        answer_at[found_one.delivery] := found_one.position;
    end loop;
    for place in select q.place from unnest(d_earlier) with ordinality as q (earlier, place)
                  where q.earlier is not null order by q.place
    loop
        answer_at[place] := coalesce(answer_at[place], answer_at[d_earlier[place]]);
    end loop;

    insert into deliveries (id, provider, route, verdict, reason, authentication, dedup_key, repeat_key,
                            duplicate_of, reprocess_of, position, received_at, remote_addr,
                            request_target, headers, body, body_bytes)
    select d.id, d.provider, d.route,
           case when d.first is null then d.verdict else 'duplicate' end,
           case when d.first is null then d.reason end,
           d.authentication,
           case when d.first is null and d.lasting and d.holds then d.identity end,
           case when d.first is null and not d.lasting and d.holds then d.identity end,
           d.first, d.reprocess_of, d.position, d.received_at, d.remote_addr, d.request_target,
           d.headers::json,
           case when d.reprocess_of is not null then null
                when d.first is null then d.body
                when d.first = d_id[d.earlier] then case when d.as_earlier then null else d.body end
                when d.body = (select f.body from deliveries f where f.id = d.first) then null
                else d.body end,
           octet_length(d.body)
      from unnest(d_id, d_provider, d_route, d_verdict, d_reason, d_authentication, d_identity, d_lasting,
                  holds_identity, first_id, d_earlier, d_as_earlier, d_reprocess_of, answer_at,
                  d_received_at, d_remote_addr, d_request_target, d_headers, d_body)
           as d (id, provider, route, verdict, reason, authentication, identity, lasting,
                  holds, first, earlier, as_earlier, reprocess_of, position,
                  received_at, remote_addr, request_target, headers, body)
     -- One that is its own first was written by a try whose answer was lost.
     where d.first is distinct from d.id;
end $$;
