//! The OpenAPI document is committed, so that a change of the interface is
//! seen in a review.

#[test]
fn the_committed_document_is_what_the_program_says() {
    let committed = include_str!("../../openapi/bitacora.json");
    assert!(
        committed == bitacora::http::openapi(),
        "openapi/bitacora.json is not up to date: run `make openapi`"
    );
}
