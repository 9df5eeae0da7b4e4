-- Work that one process does for all replicas. A lease saves work and nothing
-- more: done by two at once it comes to the same, so a clock that is wrong
-- harms nobody.
create table worker_leases (
    name   text        primary key,
    holder uuid        not null,
    until  timestamptz not null
);
comment on column worker_leases.until is 'When another may take it over.';
