//! Every bound of the pure part and of the wire, in one place.

/// Bytes of one policy file.
pub const POLICY_FILE_BYTES_MAX: usize = 1 << 20;
/// Policy files in one mesh.
pub const POLICY_FILES_MAX: usize = 4096;
/// Bytes of all policy files of one apply.
pub const POLICY_APPLY_BYTES_MAX: usize = 8 << 20;
/// Rules of one kind for one service.
pub const RULES_PER_SERVICE_MAX: usize = 1024;
/// Sources in one rule.
pub const SOURCES_PER_RULE_MAX: usize = 1024;
/// HTTP matches in one rule.
pub const HTTP_MATCHES_PER_RULE_MAX: usize = 256;
/// Routes of one service.
pub const ROUTES_PER_SERVICE_MAX: usize = 256;
/// Subsets of one service.
pub const SUBSETS_PER_SERVICE_MAX: usize = 256;
/// Targets of one route.
pub const TARGETS_PER_ROUTE_MAX: usize = 64;
/// Methods or headers of one match.
pub const MATCH_PARTS_MAX: usize = 64;
/// Diagnostics reported at once.
pub const DIAGNOSTICS_MAX: usize = 50;

/// Instances on one node.
pub const INSTANCES_PER_NODE_MAX: usize = 1024;
/// Nodes in one mesh.
pub const NODES_MAX: usize = 20_000;
/// Services in one mesh, with those that are gone: their last change is told by their name.
pub const SERVICES_MAX: usize = 65_536;
/// Keys of one `meta` table.
pub const META_KEYS_MAX: usize = 64;
/// Bytes of one `meta` key or value.
pub const META_BYTES_MAX: usize = 512;
/// Upstreams of one instance.
pub const UPSTREAMS_MAX: usize = 256;
/// Checks of one instance.
pub const CHECKS_PER_INSTANCE_MAX: usize = 16;
/// Words of an `exec` check's command.
pub const EXEC_WORDS_MAX: usize = 64;
/// Bytes kept of a check's output.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 256;
/// Tokens alive at once.
pub const TOKENS_MAX: usize = 10_000;
/// Entries of the deny list.
pub const REVOCATIONS_MAX: usize = 10_000;

/// Bytes of one message on the agents' stream.
pub const STREAM_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest pause of an agent between two tries to reach a server, in milliseconds. A new leader waits
/// as much longer before it takes a node for gone that it has not heard of.
pub const RECONNECT_MS_MAX: u64 = 5_000;
/// Subscriptions of one agent.
pub const SUBSCRIPTIONS_MAX: usize = 4096;
/// Bytes of one API request body; apply and restore have their own.
pub const API_BODY_BYTES_MAX: usize = 2 << 20;
/// Bytes of one checkpoint that can be restored.
pub const RESTORE_BYTES_MAX: usize = 256 << 20;
/// Longest wait of a blocking query, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 600;
