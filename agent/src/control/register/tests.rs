#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use mesh_core::catalog::CheckStatus;
use proptest::prelude::*;

use super::*;

fn spec(id: &str, service: &str, port: u16, health: Health) -> InstanceSpec {
    InstanceSpec {
        id: id.parse().unwrap(),
        service: service.parse().unwrap(),
        port,
        meta: BTreeMap::new(),
        upstreams: vec![],
        health,
        checks: BTreeMap::new(),
    }
}

fn apply(mut acked: Specs, request: SyncRequest) -> Specs {
    request.remove.iter().for_each(|id| drop(acked.remove(id)));
    acked.extend(request.upsert.into_iter().map(|spec| (spec.id.clone(), spec)));
    acked
}

fn registrations(specs: &Specs) -> Vec<(&InstanceId, &str, u16)> {
    specs.values().map(|spec| (&spec.id, spec.service.as_str(), spec.port)).collect()
}

fn specs() -> impl Strategy<Value = Specs> {
    let one = ("[a-d]", "[x-z]", 1..3u16, any::<bool>());
    prop::collection::vec(one, 0..6).prop_map(|all| {
        let health = |good| if good { Health::Passing } else { Health::Critical };
        let spec = |(id, service, port, good): (String, String, u16, bool)| {
            spec(&id, &service, port, health(good))
        };
        all.into_iter().map(spec).map(|spec| (spec.id.clone(), spec)).collect()
    })
}

proptest! {
    #[test]
    fn differences_lead_to_what_is_desired(desired in specs(), acked in specs()) {
        let request = diff(&desired, &acked);
        let after = apply(acked.clone(), request.clone());
        prop_assert_eq!(registrations(&after), registrations(&desired));
        let again = diff(&desired, &after);
        prop_assert!(again.upsert.is_empty() && again.remove.is_empty(), "not settled");
        // Least: nothing is sent twice, or without need.
        for spec in &request.upsert {
            prop_assert!(acked.get(&spec.id).is_none_or(|k| !same_registration(k, spec)));
        }
        prop_assert!(request.remove.iter().all(|id| acked.contains_key(id)));
    }

    #[test]
    fn splitting_loses_nothing(desired in specs(), acked in specs()) {
        let request = diff(&desired, &acked);
        let parts = split(request.clone());
        prop_assert!(parts.iter().all(|part| part.upsert.len() <= 1));
        let after = parts.into_iter().fold(acked.clone(), apply);
        prop_assert_eq!(after, apply(acked, request));
    }
}

#[test]
fn health_alone_is_no_difference() {
    let good = Specs::from([("a".parse().unwrap(), spec("a", "x", 1, Health::Passing))]);
    let bad = Specs::from([("a".parse().unwrap(), spec("a", "x", 1, Health::Critical))]);
    assert!(diff(&good, &bad).upsert.is_empty());
}

#[test]
fn specs_carry_the_health_known() {
    let host = crate::host::tests::host(
        "[instance.web-1]\nservice = \"web\"\nport = 80\nupstreams = [\"db\"]\nmeta = { v = \"1\" }\n\
         [instance.web-2]\nservice = \"web\"\nport = 81\n",
    );
    let status = CheckStatus { passing: true, output: String::new() };
    let change = HealthChange {
        health: Health::Passing,
        checks: BTreeMap::from([("tcp".to_owned(), status)]),
    };
    let report = Report::from([("web-1".parse().unwrap(), change)]);
    let specs = desired(&host, &report);
    let (one, two) = (&specs["web-1"], &specs["web-2"]);
    assert_eq!((one.health, one.checks.len(), one.upstreams.len()), (Health::Passing, 1, 1));
    assert_eq!(one.meta["v"], "1");
    assert_eq!(two.health, Health::Critical, "not known yet");
    assert_eq!(one.check(), Ok(()));
}
