//! Policy as bytes: read or refused with a place, printed and read again, and compiled.
#![no_main]

use std::sync::{Arc, LazyLock};

use mesh_core::command::{ApplyPolicy1, Command, CommandKind, Outcome};
use mesh_core::limits::DIAGNOSTICS_MAX;
use mesh_core::policy::{AccessMode, PolicyFile, PolicyObject, text};
use mesh_core::resource::RuleKind;
use mesh_core::state::{Mesh, MeshState};
use mesh_core::time::UnixMillis;
use mesh_core::trust::{CertAuthority, CertDer, Principal, Role, SealedKey};
use mesh_core::{compile, hostfile};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let refused = |problems: &[text::Diagnostic]| {
        assert!((1..=DIAGNOSTICS_MAX).contains(&problems.len()), "{} problems", problems.len());
        for problem in problems {
            assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
            assert!(!problem.to_string().is_empty());
        }
    };
    if let Err(problems) = hostfile::parse_bytes("host.toml", data) {
        refused(&problems);
    }
    let file = match text::parse_bytes("policy.toml", data) {
        Ok(file) => file,
        Err(problems) => return refused(&problems),
    };
    let printed = text::print(&file.objects);
    let again = text::parse("policy.toml", &printed).expect("what was printed is read");
    assert_eq!(text::print(&again.objects), printed, "printing is stable");
    let problems = text::check(std::slice::from_ref(&file));
    if problems.is_empty() {
        compiles(file);
    } else {
        refused(&problems);
    }
});

/// A mesh without anything in it.
static EMPTY: LazyLock<MeshState> = LazyLock::new(|| {
    let ca = CertAuthority {
        root: CertDer(Vec::new()),
        root_key: SealedKey(Vec::new()),
        intermediates: Default::default(),
    };
    let mesh = Mesh {
        trust_domain: "td.mesh".parse().expect("a trust domain"),
        datacenter: "dc1".parse().expect("a datacenter"),
        access: AccessMode::Enforce,
        ca,
        created_at: UnixMillis(0),
    };
    MeshState { feature_level: 1, mesh: Some(Arc::new(mesh)), ..MeshState::default() }
});

/// What passes the checks compiles, every rule of it, denies first.
fn compiles(file: PolicyFile) {
    let rules = |service: &_| {
        let of = |object: &&PolicyObject| {
            matches!(object, PolicyObject::Rule(_)) && object.service() == service
        };
        file.objects.iter().filter(of).count()
    };
    let apply = ApplyPolicy1 {
        expected: None,
        files: vec![file.clone()],
        remove: Vec::new(),
        message: String::new(),
    };
    let by = Principal::Token { id: "root".parse().expect("a token id"), role: Role::Admin };
    let command = Command { at: UnixMillis(1), by, kind: CommandKind::ApplyPolicy1(apply) };
    let mut state = EMPTY.clone();
    let outcome = state.apply(1, &command);
    assert!(matches!(outcome, Outcome::Policy { .. }), "{outcome:?}");
    for object in &file.objects {
        let service = object.service();
        let access = compile::access(&state, service).expect("a mesh");
        assert_eq!(access.rules.len(), rules(service), "{service}");
        let allows = access.rules.iter().map(|rule| rule.id.kind == RuleKind::Allow);
        assert!(allows.is_sorted(), "denies first: {service}");
        let routes = compile::routes(&state, service).expect("a mesh");
        for route in &routes.routes {
            assert!(route.backends.iter().any(|backend| backend.weight > 0), "{service}");
        }
    }
}
