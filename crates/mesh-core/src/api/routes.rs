//! The table of routes: the server builds its router and its OpenAPI document from it, and a
//! route that is not here does not exist. Every route declares its permission.

use crate::trust::Permission::{self, Admin, Metrics, Node, Public, Read, Renew, WritePolicy};

/// What kind of body a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// JSON of this type.
    Json(&'static str),
    /// A checkpoint file.
    Binary,
    /// Messages of the agents' stream, both ways.
    Stream,
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec {
    /// Names the handler.
    pub id: RouteId,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with `{name}` for a segment.
    pub path: &'static str,
    /// What the caller needs.
    pub permission: Permission,
    /// Whether it blocks on `index` and `wait`, and knows `stale` and `consistent`.
    pub watch: bool,
    /// The request's body.
    pub request: Body,
    /// The answer's body.
    pub response: Body,
    /// One line for people.
    pub summary: &'static str,
}

macro_rules! routes {
    ($($id:ident $method:literal $path:literal $permission:ident $watch:literal $request:expr, $response:expr, $summary:literal;)*) => {
        /// Every handler.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum RouteId { $(#[doc = $summary] $id,)* }

        /// Every route.
        pub const ROUTES: &[RouteSpec] = &[$(RouteSpec {
            id: RouteId::$id,
            method: $method,
            path: $path,
            permission: $permission,
            watch: $watch,
            request: $request,
            response: $response,
            summary: $summary,
        },)*];
    };
}

use Body::{Binary, Json, None as Empty, Stream};

routes! {
    Ready "GET" "/v1/ready" Public false Empty, Json("Ready"), "Whether this server can serve";
    OpenApi "GET" "/v1/openapi.json" Public false Empty, Json("object"), "This API as an OpenAPI document";
    Bundle "GET" "/v1/bundle" Public true Empty, Json("BundleAnswer"), "The CA certificates to verify against";
    Metrics "GET" "/v1/metrics" Metrics false Empty, Binary, "Metrics of this server as OpenMetrics text";
    Status "GET" "/v1/status" Read false Empty, Json("ServerStatus"), "The state of this server and of the mesh";
    Servers "GET" "/v1/servers" Read true Empty, Json("Vec<ServerInfo>"), "The control servers";
    JoinServer "POST" "/v1/servers/join" Public false Json("JoinServerRequest"), Json("JoinServerAnswer"), "Takes a server in by its join token";
    TransferLeader "POST" "/v1/servers/transfer" Admin false Json("TransferRequest"), Json("Written"), "Hands leadership to another server";
    RemoveServer "DELETE" "/v1/servers/{server}" Admin false Empty, Json("Written"), "Takes a server out";
    Tokens "GET" "/v1/tokens" Admin true Empty, Json("Vec<TokenInfo>"), "The tokens, without secrets";
    CreateToken "POST" "/v1/tokens" Admin false Json("CreateTokenRequest"), Json("CreateTokenAnswer"), "Makes a token; its secret is in this answer only";
    DeleteToken "DELETE" "/v1/tokens/{token}" Admin false Empty, Json("Written"), "Forgets a token";
    Enrol "POST" "/v1/enrol" Public false Json("EnrolRequest"), Json("EnrolAnswer"), "Takes a node in by its join token";
    Renew "POST" "/v1/renew" Renew false Json("RenewRequest"), Json("LeafAnswer"), "Renews the certificate of a node, also an expired one";
    Issue "POST" "/v1/issue" Node false Json("IssueRequest"), Json("LeafAnswer"), "Issues the certificate of a service that the node hosts";
    Stream "POST" "/v1/stream" Node false Stream, Stream, "The agents' stream";
    SyncInstances "PUT" "/v1/node/instances" Node false Json("SyncRequest"), Json("Written"), "Registers the difference in what the calling node hosts";
    OwnInstances "GET" "/v1/node/instances" Node true Empty, Json("Vec<Instance>"), "What the calling node has registered";
    SetAddress "PUT" "/v1/node/address" Node false Json("AddressRequest"), Json("Written"), "Where the calling node's agent listens";
    Nodes "GET" "/v1/nodes" Read true Empty, Json("Vec<Node>"), "The nodes";
    Node "GET" "/v1/nodes/{node}" Read true Empty, Json("NodeAnswer"), "A node and its instances";
    SetNodePolicy "PUT" "/v1/nodes/{node}/policy" Admin false Json("NodePolicy"), Json("Written"), "What a node may host";
    RemoveNode "DELETE" "/v1/nodes/{node}" Admin false Empty, Json("Written"), "Forgets a node and denies its key";
    Agents "GET" "/v1/agents" Read false Empty, Json("Vec<AgentStatus>"), "What the agents report: synced or behind, certificates, exposed ports";
    Services "GET" "/v1/services" Read true Empty, Json("Vec<ServiceSummary>"), "The services";
    Service "GET" "/v1/services/{service}" Read true Empty, Json("ServiceAnswer"), "A service: its policy, routes and instances";
    Health "GET" "/v1/health/{service}" Read true Empty, Json("Vec<InstanceHealth>"), "The instances of a service with their health; `passing` leaves others out";
    Policy "GET" "/v1/policy" Read true Empty, Json("PolicyList"), "The objects of policy in force";
    PolicyObject "GET" "/v1/policy/object" Read true Empty, Json("PolicyText"), "One object of policy as TOML, by `id`";
    ApplyPolicy "POST" "/v1/policy/apply" WritePolicy false Json("ApplyRequest"), Json("ApplyAnswer"), "Puts policy files in force";
    DeletePolicy "POST" "/v1/policy/delete" WritePolicy false Json("DeleteRequest"), Json("ApplyAnswer"), "Removes policy files or objects";
    Why "POST" "/v1/why" Read false Json("WhyQuery"), Json("WhyAnswer"), "What would happen to a call, and why";
    Revoke "POST" "/v1/revocations" Admin false Json("RevokeRequest"), Json("Written"), "Adds to the deny list";
    SaveSnapshot "GET" "/v1/snapshot" Admin false Empty, Binary, "A backup of the whole state";
    RestoreSnapshot "POST" "/v1/snapshot" Admin false Binary, Json("Written"), "Replaces the whole state by a backup, in a new epoch";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_unique_and_reads_do_not_write() {
        let mut seen = std::collections::BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((route.method, route.path)), "twice: {}", route.path);
            assert!(route.path.starts_with("/v1/"), "{}", route.path);
            let writes = matches!(route.permission, Admin | WritePolicy) && route.method != "GET";
            assert!(!(writes && route.watch), "{} watches and writes", route.path);
            let reads = matches!(route.permission, Read | Metrics);
            let asks = route.id == RouteId::Why;
            assert!(
                !reads || asks || route.method == "GET",
                "{} reads by {}",
                route.path,
                route.method
            );
        }
    }
}
