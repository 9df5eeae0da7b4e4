//! Partial updates of JSON documents.

use serde_json::Value;

/// Writes `patch` into `target`: objects key by key and level by level, everything else whole.
pub(crate) fn deep_merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                deep_merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_touches_only_what_it_names() {
        let mut agent =
            json!({"agent": {"language": "es", "prompt": {"llm": "x"}}, "tags": [1, 2]});
        deep_merge(
            &mut agent,
            &json!({"agent": {"prompt": {"prompt": "hola"}}, "tags": [3]}),
        );
        let expected = json!({
            "agent": {"language": "es", "prompt": {"llm": "x", "prompt": "hola"}}, "tags": [3]
        });
        assert_eq!(agent, expected);
    }
}
