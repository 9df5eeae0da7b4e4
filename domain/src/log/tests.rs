//! The tree against another implementation, and the documentation against the
//! code.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::{check_record, check_tree, record_hash};

use super::frontier::{ChangedTile, hashes_of};
use super::line::{DeliveryLine, EventLine, Line};
use super::note::{Head, NotOpened, Signer, Verifiers, signer_key};
use super::proof::Unproved;
use super::tiles::{for_record, for_tree};
use super::{Frontier, Proof, Tiles};

const DOCS: &str = include_str!("../../../docs/TRANSPARENCY.md");

fn leaves(count: u64) -> Vec<[u8; 8]> {
    (0..count).map(u64::to_be_bytes).collect()
}

/// A tree as the sealing leader grows it: in steps, each from the tiles alone.
fn grown(steps: &[u64]) -> (Frontier, Tiles, Vec<ChangedTile>) {
    let mut kept: Vec<ChangedTile> = Vec::new();
    let mut frontier = Frontier::default();
    let mut next = 0_u64;
    for step in steps {
        let size = frontier.size();
        let find = |level, index| {
            let newest = kept.iter().rev();
            let mut here = newest.filter(|tile| (tile.level, tile.index) == (level, index));
            here.next().map(|tile| hashes_of(&tile.data))
        };
        frontier = Frontier::resume(size, find).unwrap();
        for _ in 0..*step {
            let leaf = record_hash(&next.to_be_bytes());
            frontier.push(leaf, &mut |tile| kept.push(tile));
            next += 1;
        }
        kept.extend(frontier.grown_since(size));
    }
    let mut tiles = Tiles::default();
    for tile in &kept {
        tiles.insert((tile.level, tile.index), tile.data.clone());
    }
    (frontier, tiles, kept)
}

fn reference(count: u64) -> MemoryBackedTree<Sha256, [u8; 8]> {
    let mut tree = MemoryBackedTree::new();
    for leaf in leaves(count) {
        tree.push(leaf);
    }
    tree
}

fn bytes(hashes: &[super::Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn roots_and_proofs_are_those_of_another_implementation(
        steps in prop::collection::vec(1_u64..400, 1..6),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 6),
    ) {
        let size: u64 = steps.iter().sum();
        let (frontier, tiles, _) = grown(&steps);
        let theirs = reference(size);
        let root = frontier.root();
        let their_root = theirs.root();
        prop_assert_eq!(&root.0[..], &their_root.as_bytes()[..]);
        for pick in picks {
            let at = pick.index(usize::try_from(size).unwrap());
            let index = at as u64;
            let proof = tiles.prove_record(size, index).unwrap();
            let their_proof = theirs.prove_inclusion(at);
            prop_assert_eq!(bytes(&proof), their_proof.as_bytes());
            let leaf = record_hash(&index.to_be_bytes());
            check_record(&proof, size, root, index, leaf).unwrap();

            let old = index + 1;
            let consistent = tiles.prove_tree(size, old).unwrap();
            if old < size {
                let added = usize::try_from(size - old).unwrap();
                let their_proof = theirs.prove_consistency(added);
                prop_assert_eq!(bytes(&consistent), their_proof.as_bytes());
            }
            let old_root = grown(&[old]).0.root();
            check_tree(&consistent, size, root, old, old_root).unwrap();
        }
    }

    #[test]
    fn a_proof_asks_for_the_tiles_that_it_needs_and_no_others(
        size in 1_u64..2000, pick in any::<prop::sample::Index>(),
    ) {
        let index = pick.index(usize::try_from(size).unwrap()) as u64;
        let (_, all, _) = grown(&[size]);
        let only = |asked: std::collections::BTreeSet<super::tiles::TileAt>| {
            let mut some = Tiles::default();
            for at in asked {
                some.insert(at, all.get(at).unwrap().to_vec());
            }
            some
        };
        only(for_record(size, index)).prove_record(size, index).unwrap();
        only(for_tree(size, index + 1)).prove_tree(size, index + 1).unwrap();
    }
}

#[test]
fn a_tree_grown_in_steps_has_the_tiles_of_one_grown_at_once() {
    let (one, _, mut at_once) = grown(&[70_000]);
    let (steps, _, stepwise) = grown(&[1, 255, 256, 300, 65_000, 4_188]);
    assert_eq!(one, steps);
    let mut newest = std::collections::BTreeMap::new();
    for tile in stepwise {
        newest.insert((tile.level, tile.index), tile.data);
    }
    at_once.sort_by_key(|tile| (tile.level, tile.index));
    let at_once: Vec<_> = at_once
        .into_iter()
        .map(|t| ((t.level, t.index), t.data))
        .collect();
    assert_eq!(newest.into_iter().collect::<Vec<_>>(), at_once);
}

#[test]
fn a_tree_does_not_go_on_from_tiles_that_are_too_short() {
    let (_, _, tiles) = grown(&[300]);
    let short = |level, index| {
        let here = tiles.iter().find(|t| (t.level, t.index) == (level, index));
        here.map(|tile| hashes_of(&tile.data[32..]))
    };
    assert_eq!(Frontier::resume(300, short), None);
    assert_eq!(Frontier::resume(300, |_, _| None), None);
}

/// The key of the documentation's example: no log has it.
fn example_signer() -> Signer {
    let key = signer_key("example.com/bitacora", &[7; 32]).unwrap();
    Signer::new(&key, None).unwrap()
}

fn example_event() -> EventLine {
    EventLine {
        position: 1,
        aggregate_type: "sms".to_owned(),
        aggregate_id: "SM1".to_owned(),
        sequence: 1,
        event_type: "message.delivered".to_owned(),
        event_version: "1".to_owned(),
        payload: r#"{"provider":"twilio"}"#.to_owned(),
        metadata: "{}".to_owned(),
        occurred_at: None,
        recorded_at: 1_761_694_200_000_001,
        delivery_id: Some(uuid::Uuid::from_u128(
            0x0199_0000_0000_7000_8000_0000_0000_0001,
        )),
    }
}

fn example_delivery() -> DeliveryLine {
    DeliveryLine {
        id: uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001),
        seq: 1,
        provider: "twilio".to_owned(),
        route: "twilio/sms/status".to_owned(),
        verdict: "accepted".to_owned(),
        reason: None,
        authentication: "signature".to_owned(),
        dedup_key: Some(vec![1, 2, 3]),
        repeat_key: None,
        duplicate_of: None,
        reprocess_of: None,
        position: Some(1),
        received_at: 1_761_694_200_000_000,
        remote_addr: Some("192.0.2.7".to_owned()),
        request_target: "/webhooks/twilio/sms/status".to_owned(),
        headers: r#"{"content-type":"application/x-www-form-urlencoded"}"#.to_owned(),
        body: Some(b"MessageSid=SM1&MessageStatus=delivered".to_vec()),
        body_bytes: 38,
    }
}

#[test]
fn the_example_of_the_documentation_is_what_the_code_makes() {
    let (event, delivery) = (example_event(), example_delivery());
    let mut frontier = Frontier::default();
    frontier.push(event.leaf().hash(), &mut |_| ());
    frontier.push(delivery.leaf().hash(), &mut |_| ());
    let note = example_signer().sign(2, frontier.root()).unwrap();
    let proof = Proof {
        index: 0,
        entry: None,
        hashes: vec![delivery.leaf().hash()],
        checkpoint: note.clone(),
    };
    let json = |line: Line| serde_json::to_string(&line).unwrap();
    for made in [
        json(Line::Event(event.clone())),
        json(Line::Delivery(delivery.clone())),
        wrapped(&hex::encode(event.leaf().entry())),
        wrapped(&hex::encode(delivery.leaf().entry())),
        event.leaf().hash().to_string(),
        delivery.leaf().hash().to_string(),
        example_signer().verifier_key().to_owned(),
        proof.text(),
        note,
    ] {
        assert!(
            DOCS.contains(&made),
            "docs/TRANSPARENCY.md has not:\n{made}"
        );
    }
}

/// As the documentation shows bytes.
fn wrapped(hex: &str) -> String {
    let lines: Vec<&str> = (0..hex.len())
        .step_by(96)
        .map(|at| &hex[at..hex.len().min(at + 96)])
        .collect();
    lines.join("\n")
}

#[test]
fn a_line_of_json_has_the_leaf_of_its_row() {
    for line in [
        Line::Event(example_event()),
        Line::Delivery(example_delivery()),
    ] {
        let json = serde_json::to_string(&line).unwrap();
        let read: Line = serde_json::from_str(&json).unwrap();
        assert_eq!(read, line);
        assert_eq!(read.hash(), line.hash());
        assert_eq!(record_hash(&read.entry()), line.hash());
    }
}

#[test]
fn every_field_of_a_row_is_in_its_leaf() {
    for line in [
        Line::Event(example_event()),
        Line::Delivery(example_delivery()),
    ] {
        let whole = serde_json::to_value(&line).unwrap();
        for (name, value) in whole.as_object().unwrap() {
            let other = match (name.as_str(), value) {
                ("kind", _) => continue,
                ("reason", _) => "why".into(),
                (name, _) if name.ends_with("_at") => "2025-10-28T23:30:01.000002Z".into(),
                ("delivery_id" | "id" | "duplicate_of" | "reprocess_of", _) => {
                    "01990000-0000-7000-8000-000000000002".into()
                }
                ("dedup_key" | "repeat_key" | "body", _) => "AQI=".into(),
                (_, value) if value.is_number() => 77.into(),
                _ => serde_json::Value::from("another"),
            };
            let mut changed = whole.clone();
            changed[name] = other;
            let changed: Line = serde_json::from_value(changed).unwrap();
            assert_ne!(changed.hash(), line.hash(), "{name}");
        }
    }
}

#[test]
fn a_head_is_believed_by_its_key_alone() {
    let signer = example_signer();
    let root = record_hash(b"x");
    let note = signer.sign(1, root).unwrap();
    let keys = |key: &str| Verifiers::new([key.to_owned()]).unwrap();
    let head = keys(signer.verifier_key()).open(&note).unwrap();
    let expected = Head {
        origin: "example.com/bitacora".to_owned(),
        size: 1,
        root,
    };
    assert_eq!(head, expected);

    let other = signer_key("example.com/bitacora", &[8; 32]).unwrap();
    let other = Signer::new(&other, None).unwrap();
    let opened = keys(other.verifier_key()).open(&note);
    assert_eq!(opened, Err(NotOpened::Unknown));
    let forged = note.replacen("\n1\n", "\n2\n", 1);
    let opened = keys(signer.verifier_key()).open(&forged);
    assert_eq!(opened, Err(NotOpened::WrongSignature));
    assert_eq!(Head::read("no note"), Err(NotOpened::Malformed));

    let both = [
        signer.verifier_key(),
        other.verifier_key(),
        signer.verifier_key(),
    ];
    let both = Verifiers::new(both.map(str::to_owned)).unwrap();
    assert_eq!(both.keys().len(), 2);
    assert_eq!(both.open(&note), Ok(expected));
}

#[test]
fn a_proof_is_read_as_it_was_written_and_proves_one_leaf() {
    let signer = example_signer();
    let keys = Verifiers::new([signer.verifier_key().to_owned()]).unwrap();
    let (frontier, tiles, _) = grown(&[300]);
    let proof = Proof {
        index: 299,
        entry: Some(299_u64.to_be_bytes().to_vec()),
        hashes: tiles.prove_record(300, 299).unwrap(),
        checkpoint: signer.sign(300, frontier.root()).unwrap(),
    };
    let read = Proof::read(&proof.text()).unwrap();
    assert_eq!(read, proof);
    let leaf = record_hash(&299_u64.to_be_bytes());
    assert_eq!(read.verify(&keys, leaf).unwrap().size, 300);

    let elsewhere = Proof {
        index: 298,
        ..proof.clone()
    };
    assert_eq!(elsewhere.verify(&keys, leaf), Err(Unproved::NotInTree));
    let other = record_hash(b"another");
    assert_eq!(proof.verify(&keys, other), Err(Unproved::NotInTree));
    let unsigned = Proof {
        entry: None,
        ..proof
    };
    let opened = unsigned.verify(&Verifiers::default(), leaf);
    assert_eq!(opened, Err(Unproved::Checkpoint(NotOpened::Unknown)));
    for text in [
        "",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 1\nz\n\nx",
    ] {
        assert_eq!(Proof::read(text), Err(Unproved::Malformed));
    }
}

#[test]
fn a_name_that_no_key_may_have_is_refused() {
    for name in ["", "a b", "a+b", "a,b"] {
        assert!(signer_key(name, &[1; 32]).is_err(), "{name:?}");
    }
    assert!(Signer::new("nonsense", None).is_err());
    assert!(Verifiers::new(["nonsense".to_owned()]).is_err());
}
