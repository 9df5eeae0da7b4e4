-- Rows of calls are a little too large for four of them on a page. Packed by
-- lz4 they fit, at a price that the smaller log pays for. Without lz4 they
-- stay as 0012 left them: PostgreSQL's own way is slower.
do $$ begin
    alter table call_details
        alter column transcript set compression lz4, alter column analysis set compression lz4,
        alter column dynamic_variables set compression lz4, alter column sources set compression lz4,
        alter column search set compression lz4;
    alter table call_details reset (toast_tuple_target);
exception when feature_not_supported then
    raise notice 'this PostgreSQL has no lz4: rows of calls stay as they are';
end $$;
