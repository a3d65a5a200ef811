//! Properties over drawn logs.

use proptest::prelude::*;

use super::*;

/// Each word is a command; a shorter list is a shorter log, so failures shrink.
fn log() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..80)
}

fn run(words: &[u64], mut after_each: impl FnMut(&MeshState, &MeshState, &Outcome)) -> MeshState {
    let mut world = World::new();
    for (word, index) in words.iter().zip(2..) {
        let command = command(&mut Draw(*word), &world.state);
        let before = world.state.clone();
        let outcome = world.state.apply(index, &command);
        after_each(&before, &world.state, &outcome);
    }
    world.state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_log_keeps_the_promises_of_the_state(words in log()) {
        run(&words, |before, after, outcome| {
            assert!(before.revision <= after.revision && before.clock <= after.clock);
            assert!(before.server_id_last <= after.server_id_last);
            assert!(before.policy.version <= after.policy.version);
            assert!(before.trust_modified <= after.trust_modified);
            assert!(before.revoked.is_subset(&after.revoked));
            assert_eq!(flaw(after), None);
            match outcome.clone().revision() {
                Ok(revision) => assert_eq!(revision, after.revision),
                Err(_) => assert_eq!(before, after),
            }
        });
    }

    #[test]
    fn states_come_back_as_they_were(words in log()) {
        let state = run(&words, |_, _, _| {});
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        let back: MeshState = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(&back, &state);
        prop_assert_eq!(rmp_serde::to_vec_named(&back).unwrap(), bytes);
    }

    /// A replica that starts from a checkpoint ends as one that read the whole log.
    #[test]
    fn a_checkpoint_stands_for_the_log_before_it(words in log(), at: prop::sample::Index) {
        let cut = at.index(words.len() + 1);
        let mut replica = run(&words[..cut], |_, _, _| {});
        let bytes = rmp_serde::to_vec_named(&replica).unwrap();
        replica = rmp_serde::from_slice(&bytes).unwrap();
        for (word, index) in words.iter().zip(2..).skip(cut) {
            let command = command(&mut Draw(*word), &replica);
            replica.apply(index, &command);
        }
        prop_assert_eq!(replica, run(&words, |_, _, _| {}));
    }

    /// A resource that differs has a newer revision, so that no receiver misses a change.
    #[test]
    fn changed_resources_have_risen(words in log()) {
        use crate::resource::ResourceKey as Key;
        run(&words, |before, after, _| {
            for service in ["web", "orders", "batch-a", "batch-b"] {
                for key in [Key::Bundle, Key::Routes(name(service)), Key::Endpoints(name(service)), Key::Access(name(service))] {
                    let (old, new) = (crate::compile::resource(before, &key), crate::compile::resource(after, &key));
                    let (was, is) = (crate::compile::modified(before, &key), crate::compile::modified(after, &key));
                    assert!(was <= is, "{key:?} fell from {was} to {is}");
                    assert!(old == new || was < is, "{key:?} changed and stays at {is}");
                    assert!(is <= after.revision);
                }
            }
        });
    }
}

/// The drawn logs reach most of what can happen; else they would prove little.
#[test]
fn drawn_logs_reach_every_kind_of_outcome() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut draw = Draw(seed);
        let words: Vec<_> = (0..100).map(|_| draw.below(u64::MAX)).collect();
        run(&words, |_, _, outcome| {
            let text = format!("{outcome:?}");
            let end = text.find([' ', '{', ')']).unwrap_or(text.len());
            let cut = text[..end].trim_start_matches("Rejected(").to_owned();
            seen.insert(cut.split('(').next().unwrap_or_default().to_owned());
        });
    }
    for want in [
        "Done",
        "Server",
        "Policy",
        "Initialised",
        "NotFound",
        "Exists",
        "TokenInvalid",
        "TokenExpired",
        "TokenUsed",
        "TokenScope",
        "NodePolicy",
        "Instance",
        "Restore",
        "Forbidden",
        "FeatureLevel",
        "ServerBehind",
    ] {
        assert!(seen.contains(want), "{want} is never reached, only {seen:?}");
    }
}
