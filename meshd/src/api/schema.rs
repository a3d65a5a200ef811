//! JSON schemas of the types that the routes name, from a table in a short notation.
//!
//! `name type`, where a type is `text`, `int`, `bool`, another schema's name, `[T]` a list, `{T}` a
//! map, and `T?` may be null. A field `name*` may be missing.

use serde_json::{Map, Value, json};

/// Objects: name and fields.
const OBJECTS: &[(&str, &str)] = &[
    ("ApiError", "code text, message text, field* text?, request_id* text?"),
    ("Written", "revision Revision"),
    ("Ready", "ready bool, reason text?"),
    (
        "BundleAnswer",
        "trust_domain text, datacenter Name, roots_pem text, fingerprints [text], revision Revision",
    ),
    (
        "ServerStatus",
        "server Name, id int, leader Name?, term int, role text, revision Revision, \
         applied_index int, state_hash text, trust_domain text, datacenter Name, access AccessMode, \
         policy_version int, feature_level int, version text, nodes int, services int, instances int",
    ),
    (
        "ServerInfo",
        "name Name, id int, api_address text, raft_address text, voter bool, leader bool, \
         feature_level int",
    ),
    (
        "JoinServerRequest",
        "token Name, secret text, name Name, api_address text, raft_address text, csr_pem text, \
         wrap_key text, feature_level int",
    ),
    (
        "JoinServerAnswer",
        "id int, chain_pem text, roots_pem text, trust_domain text, datacenter Name, \
         wrapped_kek text, servers [ServerInfo], revision Revision",
    ),
    ("TransferRequest", "to* Name?"),
    ("CreateTokenRequest", "purpose TokenPurpose, ttl_seconds int, note text"),
    ("CreateTokenAnswer", "id Name, token text, expires_at Millis, revision Revision"),
    ("TokenInfo", "id Name, purpose TokenPurpose, expires_at Millis?, used_at Millis?, note text"),
    ("EnrolRequest", "token Name, secret text, node Name, address text, port int, csr_pem text"),
    (
        "EnrolAnswer",
        "chain_pem text, roots_pem text, trust_domain text, datacenter Name, servers [text], \
         revision Revision",
    ),
    ("RenewRequest", "csr_pem text"),
    ("IssueRequest", "service Name, csr_pem text"),
    ("LeafAnswer", "id text, chain_pem text, roots_pem text, expires_at Millis"),
    ("SyncRequest", "upsert [InstanceSpec], remove [Name]"),
    ("AddressRequest", "address text, port int"),
    (
        "InstanceSpec",
        "id Name, service Name, port int, meta {text}, upstreams [Name], health Health, \
         checks {CheckStatus}",
    ),
    ("CheckStatus", "passing bool, output text"),
    ("Instance", "node Name, spec InstanceSpec, modified Revision"),
    (
        "Node",
        "name Name, address text, port int, policy NodePolicy, key text, enrolled_at Millis, \
         liveness Liveness, last_seen Millis, modified Revision",
    ),
    ("NodePolicy", "services [text]"),
    ("NodeAnswer", "node Node, instances [Instance]"),
    (
        "AgentStatus",
        "node Name, connected bool, server Name?, generation int, version text, seen Millis, \
         report Heartbeat, error text?, wanted Revision",
    ),
    ("Heartbeat", "applied Revision, leaves {Millis}, exposed [ExposedPort], warnings [text]"),
    ("ExposedPort", "instance Name, address text"),
    (
        "ServiceSummary",
        "service Name, protocol Protocol?, access AccessMode, healthy int, instances int, rules int, \
         modified Revision",
    ),
    (
        "ServiceAnswer",
        "summary ServiceSummary, id text, endpoints [Endpoint], instances [Instance], policy text",
    ),
    ("Endpoint", "instance Name, node Name, address text, subsets [Name], state EndpointState"),
    ("InstanceHealth", "instance Instance, endpoint Endpoint"),
    ("PolicyList", "version int, objects [PolicyEntry]"),
    ("PolicyEntry", "id text, origin Origin, version int, summary text"),
    ("Origin", "file text, line int"),
    ("PolicyText", "id text, text text, version int"),
    ("ApplyRequest", "expected* int?, files [PolicyFile], prune bool, dry_run bool, message text"),
    ("DeleteRequest", "expected* int?, ids [text]"),
    (
        "ApplyAnswer",
        "version int, revision Revision, added [text], changed [text], removed [text], \
         warnings [text]",
    ),
    ("RevokeRequest", "what Revoked, reason text"),
    ("WhyQuery", "from WhyCaller, to Name, http* WhyHttp?"),
    ("WhyHttp", "method text, path text, headers [Header]"),
    (
        "WhyAnswer",
        "revision Revision, version int, caller text, allowed bool, protocol Protocol?, \
         path_before text?, path_after text?, route RouteRef, backends [WhyBackend], notes [text]",
    ),
    ("RouteRef", "id text, origin Origin?, version int"),
    (
        "WhyBackend",
        "service Name, subset Name?, weight int, decision Decision, losers [Loser], \
         endpoints [WhyEndpoint]",
    ),
    ("Decision", "allowed bool, reason Reason, audited [RuleRef]"),
    ("RuleRef", "id text, origin Origin, version int"),
    ("Loser", "rule RuleRef, why text"),
    ("WhyEndpoint", "endpoint Endpoint, usable bool, why text"),
];

/// Texts out of a few.
const ENUMS: &[(&str, &[&str])] = &[
    ("AccessMode", &["enforce", "audit"]),
    ("Protocol", &["tcp", "http", "http2", "grpc"]),
    ("Health", &["passing", "critical", "draining"]),
    ("Liveness", &["alive", "suspect", "gone"]),
    ("EndpointState", &["healthy", "suspect", "critical", "draining", "gone"]),
];

/// All schemas, by name.
pub(super) fn schemas() -> Map<String, Value> {
    let objects = OBJECTS.iter().map(|(name, fields)| ((*name).to_owned(), object(fields)));
    let enums = ENUMS
        .iter()
        .map(|(name, values)| ((*name).to_owned(), json!({ "type": "string", "enum": values })));
    let others = others().into_iter().map(|(name, schema)| (name.to_owned(), schema));
    objects.chain(enums).chain(others).collect()
}

/// The schema of the body that a route names, such as `Vec<Node>`.
pub(super) fn body(name: &str) -> Value {
    match name.strip_prefix("Vec<").and_then(|rest| rest.strip_suffix('>')) {
        Some(item) => json!({ "type": "array", "items": of_type(item) }),
        None => of_type(name),
    }
}

fn object(fields: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields.split(',') {
        let (name, kind) = field.trim().split_once(' ').unwrap_or((field, "text"));
        let bare = name.strip_suffix('*').unwrap_or(name);
        if bare == name {
            required.push(bare);
        }
        properties.insert(bare.to_owned(), of_type(kind.trim()));
    }
    json!({ "type": "object", "properties": properties, "required": required,
        "additionalProperties": false })
}

fn of_type(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return json!({ "anyOf": [of_type(kind), { "type": "null" }] });
    }
    let inner = |open, close| kind.strip_prefix(open)?.strip_suffix(close);
    if let Some(item) = inner('[', ']') {
        return json!({ "type": "array", "items": of_type(item) });
    }
    if let Some(item) = inner('{', '}') {
        return json!({ "type": "object", "additionalProperties": of_type(item) });
    }
    match kind {
        "text" => json!({ "type": "string" }),
        "int" => json!({ "type": "integer", "minimum": 0 }),
        "bool" => json!({ "type": "boolean" }),
        "object" => json!({ "type": "object" }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

/// What the notation does not say.
fn others() -> Vec<(&'static str, Value)> {
    let label = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
    vec![
        ("Name", json!({ "type": "string", "pattern": label })),
        (
            "Revision",
            json!({ "type": "string", "pattern": "^[0-9]+\\.[0-9]+$",
            "description": "EPOCH.INDEX, compared in that order" }),
        ),
        (
            "Millis",
            json!({ "type": "integer", "minimum": 0,
            "description": "milliseconds since 1970-01-01 UTC" }),
        ),
        ("Header", pair("name", "value")),
        ("PolicyFile", pair("name", "text")),
        (
            "Role",
            json!({ "oneOf": [
            { "type": "string", "enum": ["admin", "viewer", "metrics"] },
            tagged("operator", object("services [text]")),
        ] }),
        ),
        (
            "TokenPurpose",
            json!({ "oneOf": [
            tagged("node", object("name* Name?, policy NodePolicy")),
            tagged("server", object("name* Name?")),
            tagged("api", object("role Role")),
        ] }),
        ),
        (
            "Revoked",
            json!({ "oneOf": [
            tagged("Identity", of_type("text")),
            tagged("Key", of_type("text")),
            tagged("Serial", of_type("text")),
        ] }),
        ),
        (
            "WhyCaller",
            json!({ "oneOf": [
            tagged("service", of_type("Name")),
            tagged("node", of_type("Name")),
            tagged("spiffe", of_type("text")),
        ] }),
        ),
        (
            "Reason",
            json!({ "oneOf": [
            tagged("rule", of_type("RuleRef")),
            { "type": "string", "enum": ["no_rule", "audit_only"] },
        ] }),
        ),
    ]
}

fn tagged(tag: &str, body: Value) -> Value {
    json!({ "type": "object", "properties": { tag: body }, "required": [tag],
        "additionalProperties": false })
}

fn pair(first: &str, second: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2,
        "description": format!("{first} and {second}") })
}

/// Whether `value` is as `schema` says, of those that this file makes; or where it is not.
#[cfg(test)]
pub(super) fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or("");
        let all = schemas();
        let schema = all.get(name).ok_or_else(|| format!("{at}: no schema {name}"))?;
        return check(value, schema, at);
    }
    for any in ["anyOf", "oneOf"] {
        if let Some(options) = schema[any].as_array() {
            let fits = |option: &Value| check(value, option, at).is_ok();
            return match options.iter().any(fits) {
                true => Ok(()),
                false => Err(format!("{at}: {value} fits none of {schema}")),
            };
        }
    }
    let kind_fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    if !kind_fits || !listed {
        return Err(format!("{at}: {value} is not {schema}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], &format!("{at}[{index}]"))?;
    }
    let properties = schema["properties"].as_object();
    for (name, item) in value.as_object().into_iter().flatten() {
        let known = properties.and_then(|properties| properties.get(name));
        let of_map = Some(&schema["additionalProperties"]).filter(|schema| schema.is_object());
        let inner = known.or(of_map).ok_or_else(|| format!("{at}: unknown {name}"))?;
        check(item, inner, &format!("{at}.{name}"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if name.as_str().is_some_and(|name| value.get(name).is_none()) {
            return Err(format!("{at}: no {name}"));
        }
    }
    Ok(())
}
