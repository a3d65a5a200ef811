//! Helpers of tests: a small mesh, and commands drawn from a small alphabet of names.
//!
//! Integration tests include this file by its path, so it names the crate as they do.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use mesh_core::catalog::{CheckStatus, Health, InstanceSpec, KeyHash, Liveness, NodePolicy};
use mesh_core::command::{
    ApplyPolicy1, Command, CommandKind, EnrolNode1, EnrolServer1, HealthChange, InitMesh1, Outcome,
    Restore1, ServerRecord, SetHealth1, SetLiveness1, SetNodeAddress1, SetServerLevel1,
    SyncInstances1,
};
use mesh_core::identity::CaRole;
use mesh_core::name::{NodeName, ServiceName};
use mesh_core::policy::{AccessMode, PolicyFile, text};
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;
use mesh_core::trust::{
    CertAuthority, CertDer, Intermediate, Principal, Revocation, Revoked, Role, SealedKey, Token,
    TokenGrant,
};

/// When the sample mesh begins.
pub(crate) const START: UnixMillis = UnixMillis(1_795_366_861_000);

/// Parses what a test knows to be valid.
pub(crate) fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn key(byte: u8) -> KeyHash {
    KeyHash([byte; 32])
}

pub(crate) fn admin() -> Principal {
    Principal::Token { id: name("root"), role: Role::Admin }
}

pub(crate) fn operator(globs: &[&str]) -> Principal {
    let services = globs.iter().map(|glob| name(glob)).collect();
    Principal::Token { id: name("op"), role: Role::Operator { services } }
}

pub(crate) fn server() -> Principal {
    Principal::Server(name("ctl-1"))
}

pub(crate) fn agent(node: &str) -> Principal {
    Principal::Node(name(node))
}

pub(crate) fn node_policy(globs: &[&str]) -> NodePolicy {
    NodePolicy { services: globs.iter().map(|glob| name(glob)).collect() }
}

pub(crate) fn token(id: &str, grant: TokenGrant) -> Token {
    let expires_at = Some(START.plus(3_600_000));
    Token { id: name(id), secret: key(9), grant, expires_at, used: None, note: String::new() }
}

pub(crate) fn join_node(node: Option<&str>, globs: &[&str]) -> TokenGrant {
    TokenGrant::JoinNode { node: node.map(name), policy: node_policy(globs) }
}

pub(crate) fn enrol(token: &str, node: &str, with: u8) -> EnrolNode1 {
    EnrolNode1 {
        token: name(token),
        secret: key(9),
        node: name(node),
        key: key(with),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, with)),
        port: 7443,
    }
}

pub(crate) fn enrol_server(token: &str, server: &str, with: u8) -> EnrolServer1 {
    EnrolServer1 {
        token: name(token),
        secret: key(9),
        name: name(server),
        api_address: format!("10.0.1.{with}:7300"),
        raft_address: format!("10.0.1.{with}:7301"),
        key: key(with),
        feature_level: 1,
    }
}

pub(crate) fn spec(id: &str, service: &str, meta: &[(&str, &str)]) -> InstanceSpec {
    InstanceSpec {
        id: name(id),
        service: name(service),
        port: 8080,
        meta: meta.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        upstreams: Vec::new(),
        health: Health::Passing,
        checks: BTreeMap::new(),
    }
}

pub(crate) fn health(health: Health) -> HealthChange {
    let check = CheckStatus { passing: health == Health::Passing, output: "said".to_owned() };
    HealthChange { health, checks: BTreeMap::from([("http".to_owned(), check)]) }
}

pub(crate) fn sync(node: &str, upsert: Vec<InstanceSpec>, remove: &[&str]) -> CommandKind {
    let remove = remove.iter().map(|id| name(id)).collect();
    CommandKind::SyncInstances1(SyncInstances1 { node: name(node), upsert, remove })
}

pub(crate) fn set_health(node: &str, changes: &[(&str, Health)]) -> CommandKind {
    let changes = changes.iter().map(|(id, to)| (name(id), health(*to))).collect();
    CommandKind::SetHealth1(SetHealth1 { node: name(node), changes })
}

pub(crate) fn set_liveness(node: &str, liveness: Liveness) -> CommandKind {
    let nodes = BTreeMap::from([(name(node), liveness)]);
    CommandKind::SetLiveness1(SetLiveness1 { nodes, seen: BTreeMap::new() })
}

pub(crate) fn file(file: &str, toml: &str) -> PolicyFile {
    match text::parse(file, toml) {
        Ok(file) => file,
        Err(problems) => panic!("{}", problems[0]),
    }
}

pub(crate) fn files(files: Vec<PolicyFile>, remove: &[&str]) -> CommandKind {
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    let (expected, message) = (None, "a change".to_owned());
    CommandKind::ApplyPolicy1(ApplyPolicy1 { expected, files, remove, message })
}

pub(crate) fn revoke(what: Revoked) -> CommandKind {
    CommandKind::Revoke1(Revocation { what, at: START, reason: "lost".to_owned() })
}

pub(crate) fn restore(epoch: u64, state: &MeshState) -> CommandKind {
    CommandKind::Restore1(Restore1 { epoch, state: Box::new(state.clone()) })
}

pub(crate) fn init(access: AccessMode) -> CommandKind {
    let issuer =
        |byte| Intermediate { cert: CertDer(vec![byte; 4]), key: SealedKey(vec![byte; 2]) };
    let intermediates = CaRole::ALL.into_iter().zip(1..).map(|(role, b)| (role, issuer(b)));
    let root = Token { expires_at: None, ..token("root", TokenGrant::Api { role: Role::Admin }) };
    CommandKind::InitMesh1(Box::new(InitMesh1 {
        trust_domain: name("td.mesh.internal"),
        datacenter: name("dc1"),
        access,
        ca: CertAuthority {
            root: CertDer(vec![0xca; 4]),
            root_key: SealedKey(vec![0xfe; 4]),
            intermediates: intermediates.collect(),
        },
        token: root,
        server: ServerRecord {
            name: name("ctl-1"),
            id: 1,
            api_address: "10.0.1.1:7300".to_owned(),
            raft_address: "10.0.1.1:7301".to_owned(),
            key: key(101),
            feature_level: 1,
        },
    }))
}

/// A mesh and the log that made it.
pub(crate) struct World {
    pub(crate) state: MeshState,
    pub(crate) index: u64,
    pub(crate) at: UnixMillis,
}

impl World {
    /// Before `mesh init`.
    pub(crate) fn blank() -> Self {
        Self { state: MeshState::default(), index: 0, at: START }
    }

    /// After `mesh init` with default deny.
    pub(crate) fn new() -> Self {
        Self::with_access(AccessMode::Enforce)
    }

    pub(crate) fn with_access(access: AccessMode) -> Self {
        let mut world = Self::blank();
        world.done(&server(), init(access));
        world
    }

    /// Applies a command; a rejected one must change nothing.
    pub(crate) fn apply(&mut self, by: &Principal, kind: CommandKind) -> Outcome {
        let before = self.state.clone();
        self.index += 1;
        let outcome = self.state.apply(self.index, &Command { at: self.at, by: by.clone(), kind });
        if matches!(outcome, Outcome::Rejected(_)) {
            assert_eq!(self.state, before, "a rejected command changed the state");
        }
        outcome
    }

    /// Applies a command that must not be rejected.
    pub(crate) fn done(&mut self, by: &Principal, kind: CommandKind) -> Outcome {
        let outcome = self.apply(by, kind);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        outcome
    }

    /// Takes `node` in, with a token of its own.
    pub(crate) fn node(&mut self, node: &str, globs: &[&str], with: u8) {
        let id = format!("t-{node}");
        self.done(&admin(), CommandKind::CreateToken1(token(&id, join_node(Some(node), globs))));
        self.done(&Principal::Anonymous, CommandKind::EnrolNode1(enrol(&id, node, with)));
    }

    /// Registers an instance.
    pub(crate) fn host(&mut self, node: &str, id: &str, service: &str, meta: &[(&str, &str)]) {
        self.done(&agent(node), sync(node, vec![spec(id, service, meta)], &[]));
    }

    /// Puts a policy file in force.
    pub(crate) fn policy(&mut self, file_name: &str, toml: &str) {
        self.done(&admin(), files(vec![file(file_name, toml)], &[]));
    }

    /// What breaks a promise of the state, if anything.
    pub(crate) fn flaw(&self) -> Option<String> {
        flaw(&self.state)
    }
}

/// What breaks a promise of the state, if anything.
pub(crate) fn flaw(state: &MeshState) -> Option<String> {
    let mut ids = std::collections::BTreeSet::new();
    for (service, entry) in &state.services {
        for (node, of_node) in &entry.instances {
            let Some(host) = state.nodes.get(node) else {
                return Some(format!("{service} has instances on {node}, which is no node"));
            };
            if !host.policy.allows(service) || of_node.is_empty() {
                return Some(format!("{node} may not host {service}, or holds an empty entry"));
            }
            for (id, instance) in of_node {
                let right = instance.spec.id == *id
                    && instance.spec.service == *service
                    && instance.node == *node
                    && instance.modified <= entry.modified
                    && instance.modified <= host.modified;
                if !right || !ids.insert((node, id)) {
                    return Some(format!("{instance:?} is indexed wrongly"));
                }
            }
        }
        if entry.modified > state.revision {
            return Some(format!("{service} was modified in the future"));
        }
    }
    policy_flaw(state)
}

fn policy_flaw(state: &MeshState) -> Option<String> {
    let mut said: BTreeMap<&ServiceName, Vec<(String, u64)>> = BTreeMap::new();
    for (file_name, in_force) in &state.policy.files {
        if in_force.file.name != *file_name || in_force.version > state.policy.version {
            return Some(format!("file {file_name} is indexed wrongly"));
        }
        for object in &in_force.file.objects {
            said.entry(object.service()).or_default().push((object.id(), in_force.version));
        }
    }
    for (service, entry) in &state.policy.services {
        let policy = entry.service.as_ref();
        let policy = policy.map(|p| (format!("service.{}", p.service), entry.service_version));
        let rules = entry.rules.iter().map(|(rule, version)| (rule.id.to_string(), *version));
        let mut held: Vec<_> = policy.into_iter().chain(rules).collect();
        let mut want = said.remove(service).unwrap_or_default();
        held.sort();
        want.sort();
        if held != want || entry.modified > state.revision {
            return Some(format!("policy of {service} is {held:?}, files say {want:?}"));
        }
    }
    said.keys().next().map(|service| format!("policy of {service} is not indexed"))
}

/// SplitMix64: no clock, no entropy, the seed is the whole run.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn byte(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).unwrap()
    }
}

const NODES: [&str; 3] = ["n-1", "n-2", "n-3"];
const SERVICES: [&str; 4] = ["web", "orders", "batch-a", "batch-b"];
const INSTANCES: [&str; 3] = ["i-1", "i-2", "i-3"];
const TOKENS: [&str; 4] = ["t-1", "t-2", "t-3", "t-4"];
const GLOBS: [&[&str]; 4] = [&["*"], &["web"], &["batch-*", "orders"], &[]];
const FILES: [&str; 3] = ["a.toml", "b.toml", "c.toml"];
const TEXTS: [&str; 7] = [
    "",
    "[service.web]\nprotocol = \"http\"\n",
    "# moved\n[service.web]\nprotocol = \"http\"\n\n[service.web.subset.v2]\nmeta = { v = \"2\" }\n",
    "[service.orders]\nprotocol = \"http\"\n\n[[allow.orders]]\nname = \"r\"\nfrom = [\"web\"]\nhttp = [{ path_prefix = \"/v2\" }]\n",
    "[[allow.orders]]\nname = \"r\"\nfrom = [\"*\"]\n\n[[deny.batch-a]]\nfrom = [\"web\"]\n",
    "[[allow.batch-b]]\nfrom = [\"node:n-1\"]\nmode = \"audit\"\n",
    "[[service.web.route]]\nto = [{ subset = \"v2\" }]\n",
];

/// A command over few names, so that they meet; sometimes of a principal that may not.
pub(crate) fn command(draw: &mut Draw, state: &MeshState) -> Command {
    let node = draw.pick(&NODES);
    let by = match draw.below(8) {
        0 => Principal::Anonymous,
        1 => operator(draw.pick(&GLOBS)),
        2 => agent(node),
        _ => Principal::Server(name("ctl-1")),
    };
    let (kind, right) = kind(draw, node, state);
    let by = if draw.below(10) == 0 { by } else { right };
    Command { at: UnixMillis(START.0 + draw.below(3_620_000)), by, kind }
}

fn kind(draw: &mut Draw, node: &str, state: &MeshState) -> (CommandKind, Principal) {
    let anyone = Principal::Anonymous;
    match draw.below(24) {
        0 => (init(AccessMode::Enforce), server()),
        1 | 2 => (CommandKind::CreateToken1(any_token(draw, node)), admin()),
        3 => (CommandKind::DeleteToken1(name(draw.pick(&TOKENS))), admin()),
        4..=6 => {
            let enrol = enrol(draw.pick(&TOKENS), node, draw.byte(4));
            (CommandKind::EnrolNode1(enrol), anyone)
        }
        7 => {
            let enrol =
                enrol_server(draw.pick(&TOKENS), draw.pick(&["ctl-2", "ctl-3"]), draw.byte(4));
            (CommandKind::EnrolServer1(enrol), anyone)
        }
        8 => (CommandKind::RemoveServer1(name(draw.pick(&["ctl-2", "ctl-3"]))), admin()),
        9 => {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, draw.byte(3)));
            let set = SetNodeAddress1 { node: name(node), address, port: 7443 };
            (CommandKind::SetNodeAddress1(set), agent(node))
        }
        10 => {
            let policy = node_policy(draw.pick(&GLOBS));
            (CommandKind::SetNodePolicy1 { node: name(node), policy }, admin())
        }
        11 => (CommandKind::RemoveNode1(name(node)), admin()),
        12..=15 => (any_sync(draw, node), agent(node)),
        16 | 17 => {
            let to = [Health::Passing, Health::Critical, Health::Draining];
            let to = to[usize::from(draw.byte(3))];
            (set_health(node, &[(draw.pick(&INSTANCES), to)]), agent(node))
        }
        18 => {
            let to = [Liveness::Alive, Liveness::Suspect, Liveness::Gone];
            let to = to[usize::from(draw.byte(3))];
            (any_liveness(draw, node, to), server())
        }
        19..=21 => (any_files(draw), admin()),
        22 => (revoke(Revoked::Key(key(draw.byte(4)))), admin()),
        _ => match draw.below(4) {
            3 => (set_server_level("ctl-1", u32::from(draw.byte(3))), server()),
            0 => (restore(draw.below(4), state), admin()),
            1 => (CommandKind::SetFeatureLevel1(u32::from(draw.byte(3))), server()),
            _ => (
                sync(node, vec![spec("i-0", "web", &[]), spec("i-0", "orders", &[])], &[]),
                agent(node),
            ),
        },
    }
}

/// What one server says it speaks.
pub(crate) fn set_server_level(server: &str, level: u32) -> CommandKind {
    CommandKind::SetServerLevel1(SetServerLevel1 { server: name(server), level })
}

fn any_token(draw: &mut Draw, node: &str) -> Token {
    let grant = match draw.below(5) {
        0 => TokenGrant::JoinServer { server: None },
        1 => TokenGrant::Api { role: Role::Viewer },
        2 => join_node(None, draw.pick(&GLOBS)),
        _ => join_node(Some(node), draw.pick(&GLOBS)),
    };
    token(draw.pick(&TOKENS), grant)
}

fn any_sync(draw: &mut Draw, node: &str) -> CommandKind {
    let meta: &[(&str, &str)] = draw.pick(&[&[("v", "1")], &[("v", "2")]]);
    let mut instance = spec(draw.pick(&INSTANCES), draw.pick(&SERVICES), meta);
    instance.port = if draw.below(12) == 0 { 0 } else { 8080 };
    instance.upstreams = vec![name(draw.pick(&SERVICES))];
    let upsert = if draw.below(4) == 0 { Vec::new() } else { vec![instance] };
    let remove: &[&str] = if draw.below(3) == 0 { &[draw.pick(&INSTANCES)] } else { &[] };
    sync(node, upsert, remove)
}

fn any_liveness(draw: &mut Draw, node: &str, to: Liveness) -> CommandKind {
    let nodes = BTreeMap::from([(name::<NodeName>(node), to)]);
    let seen = BTreeMap::from([(name(node), UnixMillis(draw.below(START.0 * 2)))]);
    CommandKind::SetLiveness1(SetLiveness1 { nodes, seen })
}

fn any_files(draw: &mut Draw) -> CommandKind {
    let put = (0..draw.below(3)).map(|_| file(draw.pick(&FILES), draw.pick(&TEXTS))).collect();
    let remove: &[&str] = if draw.below(4) == 0 { &[draw.pick(&FILES)] } else { &[] };
    files(put, remove)
}
